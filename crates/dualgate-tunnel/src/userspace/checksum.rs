//! The Internet checksum (RFC 1071), of slices and of pseudo-headers.

/// The protocol numbers that carry one with a pseudo-header.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;

/// The sum of 16-bit words in one's complement, not inverted: `initial` added to the octets of `data`.
///
/// It is the sum in the machine's own byte order until the end, which RFC 1071 2(B) allows.
pub fn sum(data: &[u8], initial: u16) -> u16 {
    let mut words = data.chunks_exact(4);
    let mut sum: u64 =
        words.by_ref().map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))).sum();
    let rest = words.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    sum += u64::from(initial.to_be());
    fold(sum).to_be()
}

/// The sum of the pseudo-header of a packet with `length` octets above its IP header (RFC 9293 3.1, RFC 8200 8.1).
pub fn pseudo(ip: &[u8], protocol: u8, length: usize) -> u16 {
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let rest = [length[0], length[1], length[2], length[3], 0, 0, 0, protocol];
    sum(&rest, sum(addresses, 0))
}

/// Writes the checksum of an IPv4 header into it.
pub fn fill_ipv4(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !sum(header, 0);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_of_rfc_1071_section_3() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), 0xddf2);
    }

    #[test]
    fn the_sum_does_not_depend_on_where_it_is_cut() {
        let data: Vec<u8> = (0..1500_u32).map(|n| (n * 7 + n / 9) as u8).collect();
        for cut in (0..data.len()).step_by(2) {
            assert_eq!(sum(&data[cut..], sum(&data[..cut], 0)), sum(&data, 0), "cut at {cut}");
        }
    }

    #[test]
    fn an_odd_octet_counts_as_the_high_half_of_a_word() {
        assert_eq!(sum(&[0x12], 0), 0x1200);
        assert_eq!(sum(&[0x12, 0x34, 0x56], 0), 0x1234 + 0x5600);
    }

    #[test]
    fn an_ipv4_header_with_its_checksum_sums_to_all_ones() {
        let mut header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 9, 9, 192, 168, 0, 1, 192, 168, 0, 199];
        fill_ipv4(&mut header);
        assert_eq!(header[10..12], [0xb8, 0x61]);
        assert_eq!(sum(&header, 0), 0xffff);
    }
}
