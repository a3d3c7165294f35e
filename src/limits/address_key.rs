//! What counts as one address: an IPv4 address, or the /64 network of an IPv6 address, of which one customer has all addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The key of an address in tables of counts and rates. Only eight bytes, because every connection may keep one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey(u64);

impl AddressKey {
    /// The key of an address. An IPv4-mapped address has the key of its IPv4 address.
    ///
    /// An IPv4 address has the key of a network `0:0:x:y::/64`, which nobody uses.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits())),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }

    /// The key as a number.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }
}

/// Whether an address is a public one. Others are mostly those of proxies, which would make all visitors count as one.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared(ip)),
        IpAddr::V6(ip) => {
            !(ip == Ipv6Addr::LOCALHOST || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified())
        }
    }
}

/// RFC 6598: the networks between a provider and its customers, which clouds also use inside.
fn is_shared(ip: Ipv4Addr) -> bool {
    ip.to_bits() >> 22 == Ipv4Addr::new(100, 64, 0, 0).to_bits() >> 22
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address_and_a_mapped_address_is_its_ipv4_address() {
        for (a, b, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("192.0.2.1", "2001:db8::c000:201", false),
        ] {
            assert_eq!(AddressKey::of(ip(a)) == AddressKey::of(ip(b)), same, "{a} {b}");
        }
    }

    #[test]
    fn addresses_of_the_machine_of_links_and_of_private_networks_are_not_public() {
        for (text, public) in [
            ("127.0.0.1", false),
            ("127.255.0.9", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.7.7", false),
            ("169.254.1.1", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("100.128.0.1", true),
            ("100.63.255.255", true),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_public(ip(text)), public, "{text}");
        }
    }
}
