//! Socket options and ioctls that no library names.

#![expect(unsafe_code, reason = "setsockopt(2) and ioctl(2)")]

use std::ffi::{c_int, c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Sets an option that is a number.
pub fn set(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_octets(socket, level, name, &value.to_ne_bytes())
}

/// Sets an option that is a structure.
pub fn set_octets(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of a slice that lives as long as the call, which only reads it.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast::<c_void>(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for buffers of this size; the kernel gives a process without privilege what it allows.
pub fn buffers(socket: BorrowedFd<'_>, octets: usize) {
    let octets = c_int::try_from(octets).unwrap_or(c_int::MAX);
    for (force, ask) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if set(socket, libc::SOL_SOCKET, force, octets).is_err() {
            // The smaller buffer that remains works as well.
            let _ = set(socket, libc::SOL_SOCKET, ask, octets);
        }
    }
}

/// `struct ifreq`: a name and a union of 24 octets.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct InterfaceRequest {
    name: [u8; 16],
    /// What is asked or told.
    pub value: [u8; 24],
}

impl InterfaceRequest {
    /// About the interface of this name.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut octets = [0; 16];
        if name.is_empty() || name.len() > 15 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of an interface has 1 to 15 octets"));
        }
        octets[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self { name: octets, value: [0; 24] })
    }

    /// About any interface.
    pub fn unnamed() -> Self {
        Self { name: [0; 16], value: [0; 24] }
    }

    /// Performs it: `request` is one that takes a `struct ifreq`.
    pub fn perform(&mut self, descriptor: BorrowedFd<'_>, request: InterfaceIoctl) -> io::Result<()> {
        // SAFETY: every `InterfaceIoctl` reads and writes one `struct ifreq`, for which `self` has the size and alignment.
        let done = unsafe { libc::ioctl(descriptor.as_raw_fd(), request.0 as _, std::ptr::from_mut(self)) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// An ioctl that takes a `struct ifreq`.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceIoctl(c_ulong);

impl InterfaceIoctl {
    /// Makes or attaches a TUN device.
    pub const TUNSETIFF: Self = Self(libc::TUNSETIFF as c_ulong);
    /// Its index.
    pub const SIOCGIFINDEX: Self = Self(libc::SIOCGIFINDEX as c_ulong);
    /// The name of an index.
    pub const SIOCGIFNAME: Self = Self(libc::SIOCGIFNAME as c_ulong);
    /// Its flags.
    pub const SIOCGIFFLAGS: Self = Self(libc::SIOCGIFFLAGS as c_ulong);
    /// Sets its flags.
    pub const SIOCSIFFLAGS: Self = Self(libc::SIOCSIFFLAGS as c_ulong);
    /// Sets its MTU.
    pub const SIOCSIFMTU: Self = Self(libc::SIOCSIFMTU as c_ulong);
    /// Sets the length of its queue.
    pub const SIOCSIFTXQLEN: Self = Self(libc::SIOCSIFTXQLEN as c_ulong);
}

/// Says what a TUN device may leave to us (TUNSETOFFLOAD, whose argument is a number).
pub fn tun_offload(descriptor: BorrowedFd<'_>, flags: c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    let done = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETOFFLOAD as _, flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn the_loopback_interface_has_an_index_and_flags() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut request = InterfaceRequest::new("lo").unwrap();
        request.perform(socket.as_fd(), InterfaceIoctl::SIOCGIFINDEX).unwrap();
        assert_eq!(request.value[..4], 1_i32.to_ne_bytes());
        let mut request = InterfaceRequest::new("no-such").unwrap();
        assert!(request.perform(socket.as_fd(), InterfaceIoctl::SIOCGIFINDEX).is_err());
        assert!(InterfaceRequest::new("a name of 16 oct").is_err());
    }

    #[test]
    fn an_option_that_does_not_exist_is_an_error() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        buffers(socket.as_fd(), 1 << 20);
        assert!(set(socket.as_fd(), libc::SOL_UDP, 9999, 1).is_err());
        assert!(tun_offload(socket.as_fd(), 1).is_err());
    }
}
