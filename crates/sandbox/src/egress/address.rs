//! Which addresses are out there, and which are somebody's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is public: not of this machine, a private network, a link, or a use of its own.
/// Addresses of IPv6 that carry one of IPv4 count as that one.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_broadcast()
                || address.is_multicast()
                || address.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19)))
        }
        IpAddr::V6(address) => match carried(address) {
            Some(inner) => is_public(inner.into()),
            None => {
                let [first, second, ..] = address.segments();
                !(address.is_loopback()
                    || address.is_unspecified()
                    || address.is_multicast()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
                    || (first & 0xffc0) == 0xfec0
                    || (first == 0x2001 && second == 0xdb8))
            }
        },
    }
}

/// Whether an address is of a private network, as opposed to this machine, its link or no use at all.
pub(super) fn is_private_network(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(address) => match carried(address) {
            Some(inner) => is_private_network(inner.into()),
            None => address.is_unique_local(),
        },
    }
}

/// The address of IPv4 in one of IPv6: mapped, compatible, translated (64:ff9b::/96) or 6to4.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let low = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match parts {
        [0, 0, 0, 0, 0, 0xffff, high, rest] => Some(low(high, rest)),
        [0, 0, 0, 0, 0, 0, high, rest] if high != 0 => Some(low(high, rest)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, rest] => Some(low(high, rest)),
        [0x2002, high, rest, ..] => Some(low(high, rest)),
        _ => None,
    }
}
