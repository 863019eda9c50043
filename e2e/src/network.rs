//! A network on this machine (Linux: all of 127.0.0.0/8 is here): an address for each host, and where wanted a *door* in front of each
//! that can be shut, slow or lossy.
//!
//! Host *k* listens at `127.N.M.k`. Where there are doors the others are told `127.N.M.(k + 100)`: there the door of the host takes
//! connections (gRPC) and datagrams (gossip) and passes them on. So everything between two hosts passes the door of the one that is
//! called, and the rules know both: a datagram comes from the caller's address and leaves from the caller's door, to which it is
//! answered; who connects is looked up among the open files of the hosts' processes.
//!
//! What clients from outside and the bucket say passes no door.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use crate::process::GRPC_PORT;
pub const GOSSIP_PORT: u16 = 7946;

/// The number of a host.
pub type Host = u8;

const FIRST: Host = 2;
const DOORS: Host = 100;
/// Held by whoever has the network.
const LOCK: (Host, u16) = (1, GOSSIP_PORT);
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// What happens between hosts.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Nothing passes between these and the others.
    pub apart: BTreeSet<Host>,
    /// Everything comes so much later.
    pub delay: Duration,
    /// Datagrams that are lost, in percent.
    pub loss_percent: u64,
    /// Connections are broken after so many bytes, about; 0: never.
    pub reset_after_bytes: u64,
}

impl Rules {
    /// `None`: nobody of this network.
    fn let_pass(&self, from: Option<Host>, to: Host) -> bool {
        from.is_some_and(|from| self.apart.contains(&from)) == self.apart.contains(&to)
    }
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    /// The first three bytes of all addresses.
    prefix: [u8; 3],
    has_doors: bool,
    rules: watch::Sender<Rules>,
    doors: Mutex<BTreeMap<Host, Arc<UdpSocket>>>,
    /// The processes that run.
    pids: Mutex<BTreeMap<Host, u32>>,
    _lock: std::net::TcpListener,
}

impl Network {
    /// The first one that nobody on this machine has.
    pub fn claim(has_doors: bool) -> Result<Self> {
        let all = (1..=250).flat_map(|n| (0..=255).map(move |m| [127, n, m]));
        for prefix in all {
            let lock = SocketAddrV4::new(address(prefix, LOCK.0), LOCK.1);
            match std::net::TcpListener::bind(lock) {
                Ok(lock) => {
                    let rules = watch::Sender::new(Rules::default());
                    let inner = Inner {
                        prefix,
                        has_doors,
                        rules,
                        doors: Mutex::default(),
                        pids: Mutex::default(),
                        _lock: lock,
                    };
                    return Ok(Self(Arc::new(inner)));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(e) => {
                    return Err(Error::new(
                        e.kind(),
                        format!("{lock}: {e}; a cluster needs addresses as Linux has them"),
                    ));
                }
            }
        }
        Err(Error::other("no network is free"))
    }

    /// The address of the `n`th host.
    pub fn host(&self, n: usize) -> Host {
        FIRST + n as Host
    }

    pub fn address(&self, host: Host) -> Ipv4Addr {
        address(self.0.prefix, host)
    }

    /// The address that the others know: the host's own, or that of its door.
    pub fn advertised(&self, host: Host) -> Ipv4Addr {
        address(self.0.prefix, if self.0.has_doors { host + DOORS } else { host })
    }

    /// From now on this is what happens.
    pub fn rule(&self, rules: Rules) {
        self.0.rules.send_replace(rules);
    }

    /// Whose connections these are.
    pub fn set_pid(&self, host: Host, pid: u32) {
        lock(&self.0.pids).insert(host, pid);
    }

    /// Opens the door of a host, where there are doors.
    pub async fn open_door(&self, host: Host) -> Result<()> {
        if !self.0.has_doors {
            return Ok(());
        }
        let address = self.advertised(host);
        let listener = TcpListener::bind((address, GRPC_PORT)).await?;
        let socket = Arc::new(UdpSocket::bind((address, GOSSIP_PORT)).await?);
        lock(&self.0.doors).insert(host, socket.clone());
        tokio::spawn(self.clone().connections(host, listener));
        tokio::spawn(self.clone().datagrams(host, socket));
        Ok(())
    }

    async fn connections(self, host: Host, listener: TcpListener) {
        while let Ok((outer, from)) = listener.accept().await {
            let network = self.clone();
            tokio::spawn(async move {
                let finder = network.clone();
                let caller =
                    tokio::task::spawn_blocking(move || finder.owner(from)).await.unwrap_or_default();
                let mut rules = network.0.rules.subscribe();
                if rules.wait_for(|rules| rules.let_pass(caller, host)).await.is_err() {
                    return;
                }
                drop(rules);
                let Ok(inner) = TcpStream::connect((network.address(host), GRPC_PORT)).await else { return };
                let _ = (outer.set_nodelay(true), inner.set_nodelay(true));
                let ((outer_read, outer_write), (inner_read, inner_write)) =
                    (outer.into_split(), inner.into_split());
                // Both end with the first that breaks.
                let _ = tokio::try_join!(
                    network.pass(outer_read, inner_write, caller, host),
                    network.pass(inner_read, outer_write, caller, host)
                );
            });
        }
    }

    /// One direction of a connection.
    async fn pass(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        caller: Option<Host>,
        host: Host,
    ) -> Result<()> {
        let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(256);
        let mut rules = self.0.rules.subscribe();
        let read = async {
            loop {
                let mut bytes = vec![0; 64 << 10];
                let count = from.read(&mut bytes).await?;
                let delay = rules.borrow_and_update().delay;
                bytes.truncate(count);
                // An empty one is the end.
                if sender.send((Instant::now() + delay, bytes)).await.is_err() || count == 0 {
                    return Ok(());
                }
            }
        };
        let mut rules = self.0.rules.subscribe();
        let write = async {
            while let Some((due, bytes)) = receiver.recv().await {
                tokio::time::sleep_until(due).await;
                let rules = rules.wait_for(|rules| rules.let_pass(caller, host)).await;
                let break_after = rules.map_err(Error::other)?.reset_after_bytes;
                if break_after > 0 && dice(break_after) < bytes.len() as u64 {
                    return Err(Error::other("broken"));
                }
                if bytes.is_empty() {
                    return to.shutdown().await;
                }
                to.write_all(&bytes).await?;
            }
            Ok(())
        };
        tokio::try_join!(read, write).map(drop)
    }

    async fn datagrams(self, host: Host, socket: Arc<UdpSocket>) {
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        let real = SocketAddr::from((self.address(host), GOSSIP_PORT));
        loop {
            // An error is what became of one that was sent before.
            let Ok((count, from)) = socket.recv_from(&mut bytes).await else { continue };
            let SocketAddr::V4(from) = from else { continue };
            let caller = from.ip().octets()[3];
            let (passes, delay) = {
                let rules = self.0.rules.borrow();
                (rules.let_pass(Some(caller), host) && dice(100) >= rules.loss_percent, rules.delay)
            };
            let Some(door) = lock(&self.0.doors).get(&caller).cloned().filter(|_| passes) else { continue };
            let datagram = bytes[..count].to_vec();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = door.send_to(&datagram, real).await;
            });
        }
    }

    /// Whose end of a connection this is: the kernel's table of connections has the inode, the process has it among its open files.
    fn owner(&self, end: SocketAddr) -> Option<Host> {
        let SocketAddr::V4(end) = end else { return None };
        let local = format!("{:08X}:{:04X}", u32::from_le_bytes(end.ip().octets()), end.port());
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let row = table.lines().find(|row| row.split_whitespace().nth(1) == Some(&local))?;
        let socket = format!("socket:[{}]", row.split_whitespace().nth(9)?);
        let pids = lock(&self.0.pids).clone();
        let has = |pid: u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files
                .into_iter()
                .any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket))
        };
        pids.into_iter().find(|(_, pid)| has(*pid)).map(|(host, _)| host)
    }
}

fn address(prefix: [u8; 3], host: Host) -> Ipv4Addr {
    let [a, b, c] = prefix;
    Ipv4Addr::new(a, b, c, host)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Below `sides`, by a generator that is good enough (splitmix).
fn dice(sides: u64) -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let mut x = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % sides
}
