//! What is promised where the usual way is barred: without a process descriptor, and when nobody waits.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use drakkar_core::Keep;
use tokio::runtime::Runtime;

use super::*;
use crate::{
    guard::Guard,
    reactor::{Alarm, block_on},
};

const LONG: Duration = Duration::from_secs(30);

#[expect(clippy::zombie_processes, reason = "`Process` waits for it")]
/// A shell under guard, as the spawner would start it.
fn started(runtime: &Runtime, script: &str) -> Process {
    let _entered = runtime.enter();
    let guard = Guard::start(runtime.handle()).unwrap();
    let ward = guard.enrol();
    let (mark, value) = ward.mark();
    let (stdout, of_stdout) = io::pipe().unwrap();
    let (stderr, of_stderr) = io::pipe().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).env(mark, value).process_group(0).stdin(Stdio::null());
    let child = shell.stdout(of_stdout).stderr(of_stderr).spawn().unwrap();
    let leader = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let ends = Ends { stdin: None, stdout: stdout.into(), stderr: stderr.into() };
    Process::new(leader, ends, ward, Instant::now()).unwrap()
}

fn patience(limit: Duration) -> Patience<'static> {
    let short = Duration::from_millis(20);
    Patience { limit, kill: short, steps: None, pipe: short }
}

async fn end_of(process: &mut Process, limit: Duration) -> (End, Bytes) {
    let keep = Keep { head: 100, tail: 0 };
    let (mut out, mut err) = (Capture::new(keep), Capture::new(keep));
    let never = std::future::pending();
    let end = process.run(None, (&mut out, &mut err), patience(limit), never).await;
    (end, out.take().0)
}

fn is_there(pid: Pid) -> bool {
    File::open(format!("/proc/{}/stat", pid.as_raw_pid())).is_ok()
}

#[test]
fn a_kernel_without_process_descriptors_is_asked_again_and_again() {
    let runtime = Runtime::new().unwrap();
    block_on(&Alarm::new().unwrap(), async {
        let mut process = started(&runtime, "sleep 0.1; echo done; exit 3");
        process.exit = None;
        let (end, printed) = end_of(&mut process, LONG).await;
        assert!(matches!(end, End::Exited(status) if status.code() == Some(3)), "{end:?}");
        assert_eq!(printed, "done\n");
        let mut process = started(&runtime, "trap '' TERM; echo hard; while :; do sleep 1; done");
        process.exit = None;
        let (end, _) = end_of(&mut process, Duration::from_millis(300)).await;
        assert!(matches!(end, End::TimedOut), "{end:?}");
        assert!(!is_there(process.leader));
    });
}

#[test]
fn programs_run_wherever_process_descriptors_are_unknown_or_forbidden() {
    for barred in [Errno::NOSYS, Errno::INVAL, Errno::PERM, Errno::ACCESS] {
        assert!(matches!(if_there_are_any(Err(barred)), Ok(None)), "{barred}");
    }
    for shortage in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        let error = if_there_are_any(Err(shortage)).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(shortage));
    }
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    assert!(matches!(if_there_are_any(own), Ok(Some(_))));
}

#[test]
fn a_process_that_nobody_waits_for_is_killed_and_leaves_no_zombie() {
    let runtime = Runtime::new().unwrap();
    block_on(&Alarm::new().unwrap(), async {
        let process = started(&runtime, "sleep 1000");
        let leader = process.leader;
        drop(process);
        let gone = async {
            while is_there(leader) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        assert_eq!(timeout(LONG, gone).await, Some(()));
    });
}
