//! `lines`: the input of a task and a line end, and back likewise. For filters that know nothing of
//! us, as long as they answer each line with one line, at once.

use super::{Answer, Garbage, Inbox, Kept, Limits, Request, Unfit};

pub(super) fn encode(request: Request<'_>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let Request::Task(task) = request else {
        return Err(Unfit("protocol lines has no pings"));
    };
    if !task.args().is_empty() {
        return Err(Unfit("protocol lines takes no arguments, only standard input"));
    }
    let stdin = task.stdin_bytes().map_or(&[][..], |stdin| stdin.as_ref());
    if memchr::memchr(b'\n', stdin).is_some() {
        return Err(Unfit(
            "protocol lines takes one line, and its standard input holds a line end",
        ));
    }
    out.extend_from_slice(stdin);
    out.push(b'\n');
    Ok(())
}

pub(super) fn decode(inbox: &mut Inbox, limits: Limits) -> Result<Option<Answer>, Garbage> {
    let line = inbox.line(limits.answer)?;
    Ok(line.map(|line| Answer {
        id: None,
        exit_code: 0,
        stdout: Kept::of(line, limits.stdout),
        stderr: Kept::default(),
    }))
}
