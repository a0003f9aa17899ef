//! `frames`: everything has its length before it; numbers are big-endian.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, Read, Write},
};

use crate::{Answer, BUFFER, Request};

const PING: u8 = 1;

/// Serves `protocol: frames` on any pair of streams.
///
/// # Errors
///
/// When reading or writing fails, or the input is not what Drakkar writes.
pub fn serve_frames_on<R: Read>(
    mut source: BufReader<R>,
    mut sink: impl Write,
    mut answer: impl FnMut(Request<'_>) -> Answer,
) -> io::Result<()> {
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    while read_frame(&mut source, &mut frame)? {
        let (id, request) = parse(&frame).ok_or_else(malformed)?;
        let answer = request.map_or_else(Answer::default, &mut answer);
        out.clear();
        write_frame(id, &answer, &mut out)?;
        sink.write_all(&out)?;
        // Whoever waits for this answer has written all it will, unless the next request is here.
        if !holds_frame(source.buffer()) {
            sink.flush()?;
        }
        // A large one is not kept for those that follow.
        frame.shrink_to(BUFFER);
        out.shrink_to(BUFFER);
    }
    sink.flush()
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame that does not hold what it says it holds")
}

/// Whether the next frame needs no further read.
fn holds_frame(buffer: &[u8]) -> bool {
    let Some((length, rest)) = buffer.split_first_chunk() else { return false };
    u32::from_be_bytes(*length) as usize <= rest.len()
}

/// Reads the next frame without its length; `false`: there is none.
fn read_frame(source: &mut impl BufRead, frame: &mut Vec<u8>) -> io::Result<bool> {
    frame.clear();
    if source.fill_buf()?.is_empty() {
        return Ok(false);
    }
    let mut length = [0; 4];
    source.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    let read = source.by_ref().take(length).read_to_end(frame)?;
    if (read as u64) < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) }
}

/// The id and the request; a ping has none.
fn parse(frame: &[u8]) -> Option<(u64, Option<Request<'_>>)> {
    let (id, rest) = frame.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    let (count, mut rest) = rest.split_first_chunk()?;
    let mut args = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk()?;
        let (arg, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        args.push(Cow::Borrowed(arg));
        rest = after;
    }
    let request = (*kind != PING).then_some(Request { args, stdin: rest.into() });
    Some((u64::from_be_bytes(*id), request))
}

fn write_frame(id: u64, answer: &Answer, out: &mut Vec<u8>) -> io::Result<()> {
    let Answer { exit_code, stdout, stderr } = answer;
    let number = |length: usize| {
        u32::try_from(length).map_err(|_| io::Error::other("an answer of more than 4 GiB"))
    };
    out.extend_from_slice(&number(8 + 4 + 4 + stderr.len() + stdout.len())?.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&exit_code.to_be_bytes());
    out.extend_from_slice(&number(stderr.len())?.to_be_bytes());
    out.extend_from_slice(stderr);
    out.extend_from_slice(stdout);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn serve(input: &[u8], capacity: usize) -> io::Result<(Vec<String>, Vec<u8>)> {
        let (mut seen, mut out) = (Vec::new(), Vec::new());
        serve_frames_on(BufReader::with_capacity(capacity, input), &mut out, |request| {
            seen.push(format!("{request:?}"));
            Answer { exit_code: 3, stdout: request.stdin.into_owned(), stderr: b"e".to_vec() }
        })?;
        Ok((seen, out))
    }

    const REQUEST: &[u8] = b"\0\0\0\x17\0\0\0\0\0\0\0\x07\0\0\0\0\x01\0\0\0\x02-ntext";
    const PINGED: &[u8] = b"\0\0\0\x0d\0\0\0\0\0\0\0\x08\x01\0\0\0\0";

    #[test]
    fn requests_and_answers_have_the_layout_that_the_documentation_gives() {
        let (seen, out) = serve(&[REQUEST, PINGED].concat(), 5).unwrap();
        let args = vec![Cow::Borrowed(&b"-n"[..])];
        assert_eq!(seen, [format!("{:?}", Request { args, stdin: (&b"text"[..]).into() })]);
        let answer = b"\0\0\0\x15\0\0\0\0\0\0\0\x07\0\0\0\x03\0\0\0\x01etext";
        let pong = b"\0\0\0\x10\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0";
        assert_eq!(out, [&answer[..], pong].concat());
    }

    proptest! {
        #[test]
        fn what_is_cut_or_broken_is_an_error_and_no_panic(
            input in vec(any::<u8>(), 0..80), cut in 1..REQUEST.len(),
        ) {
            prop_assert!(serve(&REQUEST[..cut], 16).is_err());
            // Any outcome will do.
            drop(serve(&input, 16));
        }
    }
}
