//! Nothing that a task started outlives it: every process carries a mark, and whoever is found with
//! the mark of a run that is over is ended.
//!
//! A [`Guard`] belongs to a pool, a [`Ward`] to one process of it. At the end of a run its ward ends
//! what left the process group; once in a while the guard looks for what was missed and reaps zombies
//! that nobody waits for, which is what process 1 of a container has to do. What survives the worker
//! itself is the affair of `warden`.
//!
//! Not covered: who leaves the group **and** removes the mark from its environment, or may not be
//! looked at or signalled by the worker's user (`sudo`, other users); a program that forks faster than
//! it can be killed is fought for two seconds, then every few.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::Pid,
};
use tokio::{runtime::Handle, task::JoinSet, time::interval};
use tracing::warn;

use crate::{
    orphans::{MARK, Orphan, OrphanId, Orphans},
    reactor::sleep,
    warden::Warden,
};

/// How long the end of a run waits until what it left behind is gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// How often is looked for what was missed. A zombie seen twice is waited for by nobody.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Bytes per recorded group: a number and the end of its line.
const RECORD: usize = 12;

/// Guards the processes of one pool.
pub(crate) struct Guard {
    /// Names the pool in marks: no other pool on this machine has the same.
    token: String,
    /// What the worker itself carries, being the task of another worker, up to the slash.
    ancestry: String,
    orphans: Orphans,
    /// The groups that run, one per line: the warden's inheritance.
    groups: Arc<File>,
    runs: Mutex<Runs>,
    warden: Warden,
    escaped: AtomicU64,
    /// Ended with the guard.
    _helpers: JoinSet<()>,
}

#[derive(Default)]
struct Runs {
    count: u64,
    /// Run → line of its group.
    active: BTreeMap<u64, usize>,
    leaders: HashSet<i32>,
    free: Vec<usize>,
    lines: usize,
}

impl Guard {
    /// Adopts orphans from now on, and starts the warden.
    pub(crate) fn start(runtime: &Handle) -> io::Result<Arc<Self>> {
        let token = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        let own = env::var(MARK).unwrap_or_default();
        let ancestry = if own.is_empty() { own } else { format!("{own}/") };
        let groups = Arc::new(File::from(memfd_create("drakkar-groups", MemfdFlags::CLOEXEC)?));
        let warden = Warden::start(token.clone(), Arc::clone(&groups))?;
        let mut helpers = JoinSet::new();
        let orphans = Orphans::adopt()?;
        Ok(Arc::new_cyclic(|guard| {
            helpers.spawn_on(tidy_up(Weak::clone(guard)), runtime);
            Self {
                token,
                ancestry,
                orphans,
                groups,
                runs: Mutex::default(),
                warden,
                escaped: AtomicU64::default(),
                _helpers: helpers,
            }
        }))
    }

    /// Processes that had left their group and were ended.
    pub(crate) fn escaped(&self) -> u64 {
        self.escaped.load(Ordering::Relaxed)
    }

    /// A mark for one process that is about to be started.
    pub(crate) fn enrol(self: &Arc<Self>) -> Ward {
        let mut runs = self.runs();
        let line = runs.free.pop().unwrap_or_else(|| {
            runs.lines += 1;
            runs.lines - 1
        });
        let run = runs.count;
        runs.count += 1;
        runs.active.insert(run, line);
        Ward { guard: Arc::clone(self), run, line, leader: None }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group is noted with its number, and crossed out with spaces.
    fn note(&self, line: usize, group: &str) {
        let record = format!("{group:>width$}\n", width = RECORD - 1);
        if let Err(error) = self.groups.write_all_at(record.as_bytes(), (line * RECORD) as u64) {
            warn!(category = "executor", %error, "cannot note a process group for the warden");
        }
    }

    fn look(&self) -> Vec<Orphan> {
        self.orphans.look(self.warden.pid())
    }

    /// Kills or reaps the orphans that are `doomed`; those that were still alive.
    fn sweep(&self, doomed: impl FnMut(&Orphan) -> bool) -> Vec<Orphan> {
        let doomed = self.look().into_iter().filter(doomed);
        let (dead, alive): (Vec<_>, Vec<_>) = doomed.partition(|orphan| orphan.is_zombie);
        dead.iter().for_each(Orphan::reap);
        alive.into_iter().filter(Orphan::kill).collect()
    }

    /// Ends what belongs to runs that are over; reaps what was a zombie `before`. What is one now.
    fn tidy(&self, before: &HashSet<OrphanId>) -> HashSet<OrphanId> {
        let orphans = self.look();
        let (active, leaders) = {
            let runs = self.runs();
            (runs.active.clone(), runs.leaders.clone())
        };
        let mut zombies = HashSet::new();
        for orphan in orphans {
            let id = orphan.id();
            if !orphan.is_zombie {
                if orphan.runs(&self.token).any(|run| !active.contains_key(&run)) && orphan.kill() {
                    self.escaped.fetch_add(1, Ordering::Relaxed);
                }
            } else if before.contains(&id) {
                orphan.reap();
            } else if !leaders.contains(&orphan.pid.as_raw_pid()) {
                zombies.insert(id);
            }
        }
        zombies
    }
}

async fn tidy_up(guard: Weak<Guard>) {
    let mut tick = interval(TIDY_EVERY);
    let mut zombies = HashSet::new();
    loop {
        tick.tick().await;
        let Some(guard) = guard.upgrade() else { return };
        zombies = guard.tidy(&zombies);
    }
}

/// One process under guard. Dropped, its run is over: whoever still carries its mark is hunted.
pub(crate) struct Ward {
    guard: Arc<Guard>,
    run: u64,
    line: usize,
    leader: Option<Pid>,
}

impl Ward {
    /// The variable that the process has to carry.
    pub(crate) fn mark(&self) -> (&'static str, String) {
        let Guard { ancestry, token, .. } = &*self.guard;
        (MARK, format!("{ancestry}{token}.{}", self.run))
    }

    /// Notes the group, for the case that the worker dies.
    pub(crate) fn leads(&mut self, leader: Pid) {
        self.leader = Some(leader);
        let id = leader.as_raw_pid();
        self.guard.runs().leaders.insert(id);
        self.guard.note(self.line, &id.to_string());
    }

    /// Ends what has left the group, and what of the group became ours. To be called when the leader has
    /// exited and its group was killed; returns when nothing is left.
    pub(crate) async fn end(&self) {
        let Guard { token, escaped, .. } = &*self.guard;
        let group = self.leader.map_or(0, Pid::as_raw_pid);
        // Only what was waited for counts: after a stall of the machine they have had no time to go.
        let (mut waited, mut pause) = (Duration::ZERO, Duration::from_millis(1));
        // A zombie has no mark any more: it is known by having been seen alive.
        let mut strays = HashSet::new();
        loop {
            let alive = self.guard.sweep(|orphan| {
                Some(orphan.pid) != self.leader
                    && (orphan.group == group
                        || strays.contains(&orphan.id())
                        || orphan.runs(token).any(|run| run == self.run))
            });
            let left = alive.len();
            strays.extend(alive.iter().filter(|one| one.group != group).map(Orphan::id));
            if left == 0 || waited >= GONE_WITHIN {
                escaped.fetch_add(strays.len() as u64, Ordering::Relaxed);
                if left > 0 {
                    warn!(category = "executor", left, "what a task left running does not end");
                }
                return;
            }
            sleep(pause).await;
            waited += pause;
            pause = pause.saturating_mul(2).min(Duration::from_millis(50));
        }
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        let mut runs = self.guard.runs();
        if let Some(leader) = self.leader {
            runs.leaders.remove(&leader.as_raw_pid());
            self.guard.note(self.line, "");
        }
        runs.active.remove(&self.run);
        runs.free.push(self.line);
    }
}
