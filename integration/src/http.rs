//! An HTTP endpoint that misbehaves on demand, and remembers what it was asked.
//!
//! Written on bare sockets: a server library would not let it break its promises. It can be stopped,
//! which breaks every connection, and started again on the same port.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::broker::two_free_ports;

/// A request as the endpoint saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers in the order they came, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// The header called `name`, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What the endpoint does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This status, these headers, this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Answers after a while.
    After(Duration, Box<Answer>),
    /// Says nothing, for ever.
    Hang,
    /// Ends the connection without an answer.
    Close,
    /// Says 200, and ends the connection in the middle of the body.
    Half,
    /// Says this status, and sends this many bytes, or as many as are taken.
    Huge(u16, usize),
}

impl Answer {
    /// A status without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }
}

type Behaviour = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

#[derive(Default)]
struct State {
    behaviour: Mutex<Option<Behaviour>>,
    seen: Mutex<Vec<Request>>,
    /// Requests whose connection is ended while they are being sent.
    cut: AtomicUsize,
    connections: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    sent: AtomicUsize,
}

/// The endpoint; answers 200 until it is told otherwise.
pub struct Endpoint {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    state: Arc<State>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Endpoint {
    /// One that runs.
    pub async fn start() -> Self {
        let endpoint = Self::down();
        endpoint.restart().await;
        endpoint
    }

    /// One that does not run yet.
    #[must_use]
    pub fn down() -> Self {
        Self { port: two_free_ports(), state: Arc::default(), accepting: Mutex::default() }
    }

    /// Starts it, again on the same port.
    pub async fn restart(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&self.state)));
        *locked(&self.accepting) = Some(accepting);
    }

    /// Stops it: every connection breaks.
    pub async fn stop(&self) {
        let accepting = locked(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            assert!(accepting.await.is_err_and(|ended| ended.is_cancelled()));
        }
    }

    /// What it does from here on.
    pub fn answer(&self, behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *locked(&self.state.behaviour) = Some(Box::new(behaviour));
    }

    /// Ends the connections of the next `count` requests while they are being sent.
    pub fn cut(&self, count: usize) {
        self.state.cut.store(count, Ordering::SeqCst);
    }

    /// Its url.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it was asked, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        locked(&self.state.seen).clone()
    }

    /// Connections that were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.state.under_way.load(Ordering::SeqCst)
    }

    /// The most requests that were being answered at once, since [`Self::forget_most`].
    #[must_use]
    pub fn most_under_way(&self) -> usize {
        self.state.most_under_way.load(Ordering::SeqCst)
    }

    /// Begins to look for the most requests at once again.
    pub fn forget_most(&self) {
        self.state.most_under_way.store(0, Ordering::SeqCst);
    }

    /// Bytes of huge answers that were taken.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.state.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(accepting) = locked(&self.accepting).take() {
            accepting.abort();
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new(); // Aborted with this task.
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(stream, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// A client that goes away ends its connection; there is nobody to tell.
async fn serve(stream: TcpStream, state: Arc<State>) {
    drop(talk(BufReader::new(stream), &state).await);
}

/// One request under way, until dropped.
struct UnderWay<'a>(&'a State);

impl<'a> UnderWay<'a> {
    fn begin(state: &'a State) -> Self {
        let now = state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_under_way.fetch_max(now, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn talk(mut stream: BufReader<TcpStream>, state: &State) -> io::Result<()> {
    loop {
        let Some((mut request, length)) = head(&mut stream).await? else { return Ok(()) };
        let is_cut = |left: usize| left.checked_sub(1);
        if state.cut.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_cut).is_ok() {
            return Ok(());
        }
        request.body = vec![0; length];
        stream.read_exact(&mut request.body).await?;
        let _under_way = UnderWay::begin(state);
        let mut answer = match &*locked(&state.behaviour) {
            Some(behaviour) => behaviour(&request),
            None => Answer::status(200),
        };
        locked(&state.seen).push(request);
        while let Answer::After(wait, then) = answer {
            tokio::select! {
                () = sleep(wait) => answer = *then,
                ended = gone(&mut stream) => return ended,
            }
        }
        match answer {
            Answer::Status(status, headers, body) => {
                stream.get_mut().write_all(&whole(status, &headers, &body)).await?;
            }
            Answer::Hang => return gone(&mut stream).await,
            Answer::Close | Answer::After(..) => return Ok(()),
            Answer::Half => {
                let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
                return stream.get_mut().write_all(half).await;
            }
            Answer::Huge(status, bytes) => huge(stream.get_mut(), status, bytes, state).await?,
        }
    }
}

/// Waits until the client ends the connection.
async fn gone(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    if !stream.fill_buf().await?.is_empty() {
        std::future::pending::<()>().await; // It sends the next request already.
    }
    Ok(())
}

fn whole(status: u16, headers: &[(&'static str, String)], body: &str) -> Vec<u8> {
    let length = ("content-length", body.len().to_string());
    let lines = std::iter::once(&length).chain(headers);
    let lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} -\r\n{}\r\n{body}", lines.concat()).into_bytes()
}

async fn huge(stream: &mut TcpStream, status: u16, bytes: usize, state: &State) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let block = vec![b'x'; 64 << 10];
    let mut left = bytes;
    while 0 < left {
        let sent = stream.write(&block[..left.min(block.len())]).await?;
        state.sent.fetch_add(sent, Ordering::SeqCst);
        left -= sent;
    }
    Ok(())
}

/// The head of the next request and the length of its body; `None` when there is no other.
async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(Request, usize)>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let headers: Vec<(String, String)> =
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let request = Request { method, target, headers, body: Vec::new() };
    assert_eq!(request.header("transfer-encoding"), None, "lengths are known beforehand");
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    Ok(Some((request, length)))
}
