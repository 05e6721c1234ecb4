//! Which address the server gets.

use crate::config::DEFAULT_PORT;
use anyhow::Context;
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};
use tokio::net::TcpListener;

/// Ports tried after the default one: enough for a laptop full of development servers.
const PORTS_TRIED: u16 = 100;

/// A server without keys is for this machine alone.
pub(super) fn check_open(insecure_open: bool, listen: Option<SocketAddr>) -> anyhow::Result<()> {
    match listen {
        Some(address) if insecure_open && !address.ip().is_loopback() => anyhow::bail!(
            "--insecure-open lets everybody in who reaches the port, so it listens on loopback only, not on {address}; \
             use 127.0.0.1, or leave --insecure-open out"
        ),
        _ => Ok(()),
    }
}

/// An address that was asked for is that one or an error; the default one makes way for whoever has it.
pub(super) async fn bind(listen: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    if let Some(address) = listen {
        return TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address}; is another server running there? Choose another with --listen"
            )
        });
    }
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for port in DEFAULT_PORT..DEFAULT_PORT + PORTS_TRIED {
        match TcpListener::bind(SocketAddr::new(localhost, port)).await {
            Ok(listener) => {
                if port != DEFAULT_PORT {
                    super::say(&format!("Port {DEFAULT_PORT} is taken, so this server uses {port}.\n"));
                }
                return Ok(listener);
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {localhost}:{port}")),
        }
    }
    anyhow::bail!("no free port from {DEFAULT_PORT} on; choose one with --listen")
}

/// How this machine reaches the listener: an unspecified address (`0.0.0.0`) is reached through loopback.
pub(super) fn url(listener: &TcpListener) -> anyhow::Result<String> {
    let mut address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        });
    }
    Ok(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use super::{bind, check_open, url};

    #[test]
    fn open_servers_stay_on_this_machine() {
        let address = |text: &str| Some(text.parse().unwrap());
        assert!(check_open(true, None).is_ok());
        assert!(check_open(true, address("127.0.0.1:0")).is_ok());
        assert!(check_open(true, address("[::1]:8080")).is_ok());
        for open in ["0.0.0.0:8080", "192.168.1.2:8080", "[::]:8080"] {
            assert!(check_open(true, address(open)).is_err(), "{open}");
            assert!(check_open(false, address(open)).is_ok(), "{open}");
        }
    }

    #[tokio::test]
    async fn an_address_that_was_asked_for_is_that_one_or_an_error() {
        let first = bind(Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(url(&first).unwrap(), format!("http://{taken}"));
        let error = bind(Some(taken)).await.unwrap_err();
        assert!(error.to_string().contains("--listen"), "{error}");
    }
}
