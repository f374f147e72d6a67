//! Datagrams by the dozen: one system call receives many questions, and one sends their answers.

#![expect(unsafe_code, reason = "recvmmsg(2) and sendmmsg(2) have no safe form that receives addresses")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

/// So many datagrams at a time.
pub const SIZE: usize = 64;
/// The most octets of a question: one that is longer is none.
const SPACE: usize = 4096;

/// Where a datagram came from, as the kernel writes it (`sockaddr_in` or `sockaddr_in6`).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Address {
    octets: [u8; ADDRESS],
    length: u32,
}

const ADDRESS: usize = size_of::<libc::sockaddr_in6>();

impl Address {
    const NONE: Self = Self { octets: [0; ADDRESS], length: 0 };

    /// `None` for what is no address of the Internet.
    fn read(&self) -> Option<SocketAddr> {
        let octets = &self.octets;
        let family = i32::from(u16::from_ne_bytes([octets[0], octets[1]]));
        let port = u16::from_be_bytes([octets[2], octets[3]]);
        match family {
            libc::AF_INET => {
                let address: [u8; 4] = octets[4..8].try_into().ok()?;
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port))
            }
            libc::AF_INET6 => {
                let address: [u8; 16] = octets[8..24].try_into().ok()?;
                let scope = u32::from_ne_bytes(octets[24..28].try_into().ok()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(address), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

/// Space for questions and their answers, used again and again.
pub struct Batch {
    questions: Box<[[u8; SPACE]]>,
    addresses: Box<[Address]>,
    /// Of each question; 0 for one that is too long.
    lengths: [usize; SIZE],
    answers: Box<[Vec<u8>]>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            questions: vec![[0; SPACE]; SIZE].into_boxed_slice(),
            addresses: vec![Address::NONE; SIZE].into_boxed_slice(),
            lengths: [0; SIZE],
            answers: (0..SIZE).map(|_| Vec::with_capacity(SPACE)).collect(),
        }
    }
}

impl Batch {
    /// Receives what waits at the socket; how many came. No answer is left from before.
    ///
    /// # Errors
    ///
    /// As recvmmsg(2): `WouldBlock` when nothing waits.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.answers.iter_mut().for_each(Vec::clear);
        let mut parts = [NO_PART; SIZE];
        let mut headers = [NO_HEADER; SIZE];
        for (index, header) in headers.iter_mut().enumerate() {
            parts[index] = libc::iovec { iov_base: self.questions[index].as_mut_ptr().cast(), iov_len: SPACE };
            let head = &mut header.msg_hdr;
            head.msg_name = self.addresses[index].octets.as_mut_ptr().cast();
            head.msg_namelen = ADDRESS as libc::socklen_t;
            head.msg_iov = &raw mut parts[index];
            head.msg_iovlen = 1;
        }
        // SAFETY: each header points to one part and one address of the lengths that it says; all of them are borrowed by
        // `self` or live in this frame, each at a place of its own, and the kernel keeps no pointer after the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                SIZE as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (index, header) in headers.iter().enumerate().take(count) {
            let is_cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            self.lengths[index] = if is_cut { 0 } else { (header.msg_len as usize).min(SPACE) };
            self.addresses[index].length = header.msg_hdr.msg_namelen;
        }
        Ok(count)
    }

    /// A question of the last [`Batch::receive`], who asks, and space for its answer, which is sent unless it is empty.
    pub fn take(&mut self, index: usize) -> Option<(&[u8], SocketAddr, &mut Vec<u8>)> {
        let from = self.addresses.get(index)?.read()?;
        let question = self.questions.get(index)?.get(..self.lengths[index])?;
        Some((question, from, self.answers.get_mut(index)?))
    }

    /// Sends all answers, and forgets them; how many could not be sent.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        let mut parts = [NO_PART; SIZE];
        let mut headers = [NO_HEADER; SIZE];
        let mut count = 0;
        let answers = self.answers.iter_mut().zip(self.addresses.iter_mut());
        for (answer, address) in answers.filter(|(answer, _)| !answer.is_empty()) {
            parts[count] = libc::iovec { iov_base: answer.as_mut_ptr().cast(), iov_len: answer.len() };
            let head = &mut headers[count].msg_hdr;
            head.msg_name = address.octets.as_mut_ptr().cast();
            head.msg_namelen = address.length.min(ADDRESS as libc::socklen_t);
            head.msg_iov = &raw mut parts[count];
            head.msg_iovlen = 1;
            count += 1;
        }
        let (mut at, mut lost) = (0, 0);
        while at < count {
            let left = &mut headers[at..count];
            // SAFETY: each header points to one part and one address of the lengths that it says; all of them are borrowed
            // by `self` or live in this frame, are only read, and the kernel keeps no pointer after the call.
            let done = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    left.as_mut_ptr(),
                    left.len() as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            match usize::try_from(done) {
                Ok(done @ 1..) => at += done,
                // The first one that is left cannot be sent, such as one to an asker that is out of reach.
                Ok(0) | Err(_) => (at, lost) = (at + 1, lost + 1),
            }
        }
        self.answers.iter_mut().for_each(Vec::clear);
        lost
    }
}

const NO_PART: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
// SAFETY: numbers that are 0 and pointers that are null are a header that names nothing.
const NO_HEADER: libc::mmsghdr = unsafe { std::mem::zeroed() };

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn many_questions_come_with_their_askers_and_each_gets_its_answer() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(address).unwrap();
            let at = server.local_addr().unwrap();
            let mut batch = Batch::default();
            let nothing = batch.receive(server.as_fd()).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            let askers: Vec<UdpSocket> = (0..SIZE + 3).map(|_| UdpSocket::bind(address).unwrap()).collect();
            for (number, asker) in askers.iter().enumerate() {
                asker.send_to(&[number as u8; 20], at).unwrap();
            }
            askers[0].send_to(&[0; SPACE + 1], at).unwrap();
            let mut seen = 0;
            while seen < askers.len() + 1 {
                let count = batch.receive(server.as_fd()).unwrap();
                for index in 0..count {
                    let (question, from, answer) = batch.take(index).unwrap();
                    if question.is_empty() {
                        continue;
                    }
                    assert_eq!(from, askers[usize::from(question[0])].local_addr().unwrap());
                    // Odd ones get no answer.
                    if question[0] % 2 == 0 {
                        answer.extend_from_slice(&[question[0]; 3]);
                    }
                }
                assert_eq!(batch.send(server.as_fd()), 0);
                seen += count;
            }
            for (number, asker) in askers.iter().enumerate() {
                let mut space = [0; 16];
                asker.set_nonblocking(true).unwrap();
                let answer = asker.recv(&mut space).ok().map(|length| space[..length].to_vec());
                assert_eq!(answer, (number % 2 == 0).then(|| vec![number as u8; 3]));
            }
        }
    }
}
