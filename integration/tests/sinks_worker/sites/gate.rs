//! A gate before a server of MongoDB's protocol, which itself knows no rights: it answers an insert into the
//! collection `closed` as a MongoDB does whose user may not.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use mongodb::bson::{Document, RawDocument, doc};

/// Bytes of the header of a message: length, its id, what it answers, what it is.
const HEADER: usize = 16;

/// What every message of our time is: a command, or the answer to one.
const OP_MSG: i32 = 2013;

/// Listens on loopback until the process ends.
pub(crate) struct Gate {
    pub(crate) port: u16,
    is_open: Arc<AtomicBool>,
}

impl Gate {
    pub(crate) fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_open = Arc::new(AtomicBool::new(false));
        let gate = Self { port, is_open: Arc::clone(&is_open) };
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                // Where the server is away, the connection ends at once.
                if let Ok(far) = TcpStream::connect(("127.0.0.1", server)) {
                    connect(&near, &far, &is_open).unwrap();
                }
            }
        });
        gate
    }

    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

/// Passes messages to and fro, until one of the two hangs up.
fn connect(near: &TcpStream, far: &TcpStream, is_open: &Arc<AtomicBool>) -> io::Result<()> {
    let answers = Arc::new(Mutex::new(near.try_clone()?));
    let (back, is_open) = (Arc::clone(&answers), Arc::clone(is_open));
    let ends = (near.try_clone()?, far.try_clone()?);
    let (mut from_near, mut to_far) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || {
        while let Ok(message) = message(&mut from_near) {
            let passed = match refusal(&message) {
                Some(refusal) if !is_open.load(Ordering::SeqCst) => {
                    back.lock().unwrap().write_all(&refusal)
                }
                _ => to_far.write_all(&message),
            };
            if passed.is_err() {
                break;
            }
        }
        hang_up(&ends);
    });
    let ends = (near.try_clone()?, far.try_clone()?);
    let mut from_far = far.try_clone()?;
    thread::spawn(move || {
        while let Ok(message) = message(&mut from_far) {
            if answers.lock().unwrap().write_all(&message).is_err() {
                break;
            }
        }
        hang_up(&ends);
    });
    Ok(())
}

fn hang_up((near, far): &(TcpStream, TcpStream)) {
    for end in [near, far] {
        drop(end.shutdown(Shutdown::Both)); // It may be gone already.
    }
}

fn message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message)?;
    message.resize(number(&message).try_into().unwrap(), 0);
    from.read_exact(&mut message[4..])?;
    Ok(message)
}

fn number(bytes: &[u8]) -> i32 {
    i32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// The answer to an insert into `closed`.
fn refusal(message: &[u8]) -> Option<Vec<u8>> {
    // Behind the header: four bytes of flags, one that says "a document follows".
    let body = message.get(HEADER + 5..).filter(|_| number(&message[12..]) == OP_MSG)?;
    let length = number(body).try_into().unwrap();
    let command = RawDocument::from_bytes(&body[..length]).unwrap();
    if !command.get_str("insert").is_ok_and(|place| place == "closed") {
        return None;
    }
    let answer = doc! {
        "ok": 0.0, "code": 13, "codeName": "Unauthorized",
        "errmsg": "not authorized on site to execute command { insert: \"closed\" }",
    };
    Some(answered(&message[4..8], &answer))
}

fn answered(request: &[u8], answer: &Document) -> Vec<u8> {
    let body = answer.to_vec().unwrap();
    let length = i32::try_from(HEADER + 5 + body.len()).unwrap();
    [&length.to_le_bytes()[..], &[0; 4], request, &OP_MSG.to_le_bytes(), &[0; 5], &body].concat()
}
