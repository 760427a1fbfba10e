//! The way from a node to its hub, which a test can cut or hold up. Like a router it stands for the hub: where the hub tells
//! its own address, the node sees the way's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// One node's way.
pub struct Way {
    pub address: SocketAddr,
    held: watch::Sender<bool>,
    /// Connections of the present.
    open: Arc<Mutex<Vec<JoinHandle<()>>>>,
    _listening: JoinHandle<()>,
}

impl Way {
    pub async fn to(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = watch::Sender::new(false);
        let open: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (holding, opened) = (held.clone(), Arc::clone(&open));
        let listening = tokio::spawn(async move {
            let address_of_hub = hub;
            while let Ok((node, _)) = listener.accept().await {
                let Ok(hub) = TcpStream::connect(hub).await else { continue };
                let ((from_node, to_node), (from_hub, to_hub)) = (node.into_split(), hub.into_split());
                let (up, down) = (holding.subscribe(), holding.subscribe());
                let task = tokio::spawn(async move {
                    let mut both = JoinSet::new();
                    both.spawn(carry(from_node, to_hub, up, None));
                    both.spawn(carry(from_hub, to_node, down, Some((address_of_hub, address))));
                    both.join_next().await;
                });
                opened.lock().unwrap().push(task);
            }
        });
        Self { address, held, open, _listening: listening }
    }

    /// Every connection is gone, at both ends.
    pub fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|task| task.abort());
    }

    /// Nothing goes through, and nobody is told.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
    stands_for: Option<(SocketAddr, SocketAddr)>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if let Some((hub, way)) = stands_for {
            let (told, seen) = (hub.to_string(), way.to_string());
            assert_eq!(told.len(), seen.len(), "ports of five digits");
            while let Some(at) = buffer[..count].windows(told.len()).position(|it| it == told.as_bytes()) {
                buffer[at..at + seen.len()].copy_from_slice(seen.as_bytes());
            }
        }
        if held.wait_for(|held| !held).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
