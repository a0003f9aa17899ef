//! A server of a few lines, for what no real one can be brought to say: it tells the driver who it is, and
//! answers one command as a test wants it.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use mongodb::bson::{Document, RawDocumentBuf, doc};

/// Who a server is that takes writes and belongs to no replica set.
pub(super) fn standalone() -> Document {
    doc! {
        "ok": 1, "isWritablePrimary": true, "helloOk": true, "maxWireVersion": 21,
        "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48 << 20,
    }
}

/// Starts a server that answers `reply` where it is asked for `command`, and who it is to all else. Its host
/// and port.
pub(super) fn start(hello: &Document, command: &str, reply: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hello = RawDocumentBuf::try_from(hello).unwrap().into_bytes();
    let word = format!("{command}\0").into_bytes();
    thread::spawn(move || {
        for to in listener.incoming() {
            let (hello, word, reply) = (hello.clone(), word.clone(), reply.clone());
            thread::spawn(move || serve(to.unwrap(), &hello, &word, &reply));
        }
    });
    address
}

fn serve(mut to: TcpStream, hello: &[u8], word: &[u8], reply: &[u8]) -> io::Result<()> {
    loop {
        let mut header = [0; 16];
        to.read_exact(&mut header)?;
        let length = u32::from_le_bytes(header[..4].try_into().unwrap());
        let mut asked = vec![0; length as usize - header.len()];
        to.read_exact(&mut asked)?;
        let is_asked = asked.windows(word.len()).any(|part| part == word);
        let body = if is_asked { reply } else { hello };
        let mut message = u32::try_from(21 + body.len()).unwrap().to_le_bytes().to_vec();
        message.extend([0; 4]); // the id of the message
        message.extend(&header[4..8]); // what it answers
        message.extend(2013_u32.to_le_bytes()); // OP_MSG
        message.extend([0; 5]); // no flags; a section that is one document
        message.extend(body);
        to.write_all(&message)?;
    }
}
