//! A way to a server on which what the first connection sends can be kept back for a while, and which
//! can lead new connections elsewhere.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

/// Listens on loopback and passes on.
pub(super) struct Relay {
    /// Where it listens on 127.0.0.1.
    pub(super) port: u16,
    hold: watch::Sender<bool>,
    /// The port that new connections lead to.
    server: watch::Sender<u16>,
    /// When the server is done with the first connection.
    ended: oneshot::Receiver<()>,
}

impl Relay {
    pub(super) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hold, kept_back) = watch::channel(false);
        let (server, led_to) = watch::channel(server);
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let mut end = Some(end);
            while let Ok((near, _)) = listener.accept().await {
                let server = *led_to.borrow();
                let far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let free = watch::channel(false).1;
                let kept_back = if end.is_some() { kept_back.clone() } else { free };
                tokio::spawn(pass(near, far, kept_back, end.take()));
            }
        });
        Self { port, hold, server, ended }
    }

    /// Leads new connections to another server; those that there are stay.
    pub(super) fn leads_to(&self, server: u16) {
        self.server.send(server).unwrap();
    }

    pub(super) fn hold_back_the_first(&self) {
        self.hold.send(true).unwrap();
    }

    /// Waits until the server has read it all.
    pub(super) async fn let_it_go(self) {
        self.hold.send(false).unwrap();
        self.ended.await.unwrap();
    }
}

async fn pass(
    mut near: TcpStream,
    mut far: TcpStream,
    mut kept_back: watch::Receiver<bool>,
    end: Option<oneshot::Sender<()>>,
) {
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let there = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_near.read(&mut bytes).await {
            // An error: nobody can hold it back any more.
            drop(kept_back.wait_for(|kept_back| !kept_back).await);
            if to_far.write_all(&bytes[..count]).await.is_err() {
                break; // The server does not want to hear it.
            }
        }
        drop(to_far.shutdown().await);
    };
    let back = async { drop(copy(&mut from_far, &mut to_near).await) };
    tokio::join!(there, back);
    if let Some(end) = end {
        end.send(()).unwrap();
    }
}
