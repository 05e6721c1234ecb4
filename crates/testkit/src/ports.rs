//! Ports for servers that bind them themselves, seconds after they were told which.
//!
//! A port that the kernel picks, closed again so that a server can have it, is free for everybody until then: the
//! kernel gives it to the next test that asks, and to outgoing connections, of which a suite makes thousands. A server
//! that was killed leaves its port as free until it is back. So ports lie where the kernel picks none, and each is
//! reserved, among all processes that ask here, for as long as the process lives that was given it.
//!
//! A name in the kernel's table of abstract sockets is the reservation. It ends with the process, however that ends; it
//! is nobody's file; and the table is, like the ports, the network namespace's.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    ops::Range,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Below what Linux gives to outgoing connections unless it is told otherwise (32768 to 60999), and above most services.
const WISHED: Range<u32> = 20_000..32_000;
/// Fewer are too few for all the suites of a machine.
const LEAST: u32 = 1_000;
const LAST_PORT: u32 = 65_535;
/// Between the first tries of two processes whose numbers are neighbours: no server of tests wants more ports.
const STRIDE: u32 = 16;

/// A port on which nobody listens, ours until this process ends.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    static OURS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    let range = range(kernels_own());
    let first = std::process::id().wrapping_mul(STRIDE);
    for _ in range.clone() {
        let offset = first.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % range.len() as u32;
        let port = u16::try_from(range.start + offset).expect("the range ends with the last port");
        let Some(reservation) = reservation_of(port) else { continue };
        if is_free(port) {
            OURS.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
            return port;
        }
    }
    panic!("no port of {range:?} is free");
}

/// First and last port that the kernel gives to those who ask for any.
fn kernels_own() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux has /proc");
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a port"));
    (numbers.next().expect("the first"), numbers.next().expect("the last"))
}

/// Where we look: beside the kernel's own ports, if it leaves room there.
fn range((first, last): (u32, u32)) -> Range<u32> {
    let below = WISHED.start..WISHED.end.min(first);
    let above = last + 1..LAST_PORT + 1;
    [below, above].into_iter().find(|range| range.len() >= LEAST as usize).unwrap_or(WISHED)
}

/// `None`: somebody has it.
fn reservation_of(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("reelyard-port-{port}")).expect("a short name");
    match UnixDatagram::bind_addr(&name) {
        Ok(reservation) => Some(reservation),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(error) => panic!("port {port} cannot be reserved: {error}"),
    }
}

/// On every address: some servers bind them all. A machine may have no IPv6.
fn is_free(port: u16) -> bool {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].into_iter().all(|everywhere| {
        match TcpListener::bind((everywhere, port)) {
            Ok(_) => true,
            Err(error) => everywhere.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{free_port, is_free, range, reservation_of};
    use std::{collections::BTreeSet, net::TcpListener};

    #[test]
    fn a_port_is_given_once_and_stays_reserved() {
        let ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        // As another process would ask: the kernel asks nobody who he is.
        assert!(ports.iter().all(|port| reservation_of(*port).is_none()));
        // The server may have it.
        assert!(ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()));
    }

    #[test]
    fn a_port_on_which_somebody_listens_is_not_free() {
        for address in ["127.0.0.1", "0.0.0.0"] {
            let listener = TcpListener::bind((address, free_port())).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(!is_free(port), "{address}");
            drop(listener);
            assert!(is_free(port), "{address}");
        }
    }

    #[test]
    fn ports_lie_where_the_kernel_picks_none() {
        assert_eq!(range((32_768, 60_999)), 20_000..32_000);
        assert_eq!(range((25_000, 60_999)), 20_000..25_000);
        assert_eq!(range((10_000, 60_999)), 61_000..65_536);
        assert_eq!(range((20_500, 60_999)), 61_000..65_536);
        assert_eq!(range((1_024, 65_535)), 20_000..32_000, "there is no such place");
    }
}
