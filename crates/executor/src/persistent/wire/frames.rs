//! `frames`: everything has its length before it; numbers are big-endian.
//!
//! ```text
//! request  length:u32  id:u64  kind:u8  count:u32  count × (length:u32 argument)  stdin
//! answer   length:u32  id:u64  exit_code:i32  length:u32 stderr  stdout
//! ```
//!
//! The first length counts what follows it; stdin and stdout are the rest of their frame. Kind 0 is a
//! task, 1 a ping: without arguments and stdin, any answer with its id will do.

use std::os::unix::ffi::OsStrExt;

use super::{Answer, Garbage, Inbox, Kept, Limits, Request, Unfit};

/// Of the first length.
const PREFIX: usize = 4;

const TASK: u8 = 0;
const PING: u8 = 1;

const TOO_LARGE: Unfit = Unfit("its arguments and input do not fit into a frame (4 GiB)");

pub(super) fn encode(id: u64, request: Request<'_>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let (kind, args, stdin): (_, &[_], &[u8]) = match request {
        Request::Task(task) => {
            (TASK, task.args(), task.stdin_bytes().map_or(&[], |stdin| stdin.as_ref()))
        }
        Request::Ping => (PING, &[], &[]),
    };
    let held: usize = args.iter().map(|arg| PREFIX + arg.len()).sum();
    let length = number(8 + 1 + PREFIX + held + stdin.len())?;
    out.reserve(PREFIX + length as usize);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.push(kind);
    // None of these is longer than the frame, whose length has been checked.
    out.extend_from_slice(&number(args.len())?.to_be_bytes());
    for arg in args {
        out.extend_from_slice(&number(arg.len())?.to_be_bytes());
        out.extend_from_slice(arg.as_bytes());
    }
    out.extend_from_slice(stdin);
    Ok(())
}

fn number(length: usize) -> Result<u32, Unfit> {
    u32::try_from(length).map_err(|_| TOO_LARGE)
}

pub(super) fn decode(inbox: &mut Inbox, limits: Limits) -> Result<Option<Answer>, Garbage> {
    let Some((prefix, rest)) = inbox.rest().split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if limits.answer < length {
        return Err(Garbage::TooLong(limits.answer));
    }
    if rest.len() < length {
        return Ok(None);
    }
    answer(&inbox.take(PREFIX + length)[PREFIX..], limits).ok_or(Garbage::Frame).map(Some)
}

fn answer(frame: &[u8], limits: Limits) -> Option<Answer> {
    let (id, rest) = frame.split_first_chunk()?;
    let (exit_code, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (stderr, stdout) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some(Answer {
        id: Some(u64::from_be_bytes(*id)),
        exit_code: i32::from_be_bytes(*exit_code),
        stdout: Kept::of(stdout, limits.stdout),
        stderr: Kept::of(stderr, limits.stderr),
    })
}
