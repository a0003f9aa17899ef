//! The poll thread's side of the channels: assigns, revokes, and books what is committed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar_core::{
    SourceMessage, TopicPartition,
    backpressure::{Limits, Load},
    source::{Assignment, Position, SourceCommand, SourceControl, SourceEvent},
};
use tokio::sync::{mpsc, watch};

use crate::lock;

/// The last word of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOver {
    /// Which assignment it was.
    pub epoch: u64,
    /// What may be committed, and the done map.
    pub position: Option<Position>,
}

/// What the pipeline asked of the source so far.
#[derive(Debug, Default)]
pub struct Book {
    /// All commits per partition, in order.
    pub commits: HashMap<TopicPartition, Vec<Position>>,
    /// The hand-overs, in order.
    pub handed_over: Vec<(TopicPartition, HandedOver)>,
    /// Partitions that asked to be resumed, in order.
    pub resumed: Vec<TopicPartition>,
    /// Whether intake was stopped.
    pub quiesced: bool,
    last: HashMap<TopicPartition, Position>,
    /// Assignments so far, also those of workers that have crashed: each has its own number.
    epochs: u64,
}

impl Book {
    /// The last position reported for `partition`, by commit or hand-over.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<&Position> {
        self.last.get(partition)
    }

    fn enter(&mut self, command: SourceCommand) {
        match command {
            SourceCommand::Commit { partition, position, .. } => {
                self.last.insert(partition.clone(), position.clone());
                self.commits.entry(partition).or_default().push(position);
            }
            SourceCommand::HandOver { partition, epoch, position } => {
                if let Some(position) = &position {
                    self.last.insert(partition.clone(), position.clone());
                }
                self.handed_over.push((partition, HandedOver { epoch, position }));
            }
            SourceCommand::Resume { partition, .. } => self.resumed.push(partition),
            SourceCommand::Quiesce => self.quiesced = true,
            _ => {}
        }
    }
}

struct Feed {
    epoch: u64,
    inbox: mpsc::UnboundedSender<Arc<SourceMessage>>,
    load: Arc<Load>,
}

/// A source that the test plays.
pub(crate) struct TestSource {
    pub events: mpsc::UnboundedSender<SourceEvent>,
    pub book: Arc<Mutex<Book>>,
    pub changed: watch::Receiver<u64>,
    /// Partitions that are being taken away: released when they are handed over.
    revoked: Arc<Mutex<HashSet<TopicPartition>>>,
    feeds: HashMap<TopicPartition, Feed>,
}

impl TestSource {
    /// A source that goes on with `book`.
    pub(crate) fn new(
        book: Arc<Mutex<Book>>,
    ) -> (Self, mpsc::UnboundedReceiver<SourceEvent>, SourceControl) {
        let (events, receiver) = mpsc::unbounded_channel();
        let (commands, asked) = std::sync::mpsc::channel();
        let (tell, changed) = watch::channel(0);
        let asked = Mutex::new(asked);
        let revoked = Arc::new(Mutex::new(HashSet::new()));
        let wake = {
            let (book, events, revoked) = (Arc::clone(&book), events.clone(), Arc::clone(&revoked));
            move || {
                while let Ok(command) = lock(&asked).try_recv() {
                    let answered = answered(&command).filter(|of| lock(&revoked).remove(of));
                    lock(&book).enter(command);
                    if let Some(partition) = answered {
                        let partitions = vec![partition];
                        drop(events.send(SourceEvent::Released { partitions }));
                    }
                }
                tell.send_modify(|count| *count += 1);
            }
        };
        let control = SourceControl::new(commands, Arc::new(wake));
        let source = Self { events, book, changed, revoked, feeds: HashMap::new() };
        (source, receiver, control)
    }

    pub(crate) fn assign(
        &mut self,
        partition: &TopicPartition,
        limits: Limits,
        committed: Option<Position>,
    ) {
        let epoch = {
            let mut book = lock(&self.book);
            book.epochs += 1;
            book.epochs
        };
        let (sender, inbox) = mpsc::unbounded_channel();
        let load = Arc::new(Load::new(limits));
        let feed = Feed { epoch, inbox: sender, load: Arc::clone(&load) };
        self.feeds.insert(partition.clone(), feed);
        self.tell(SourceEvent::Assigned(vec![Assignment {
            partition: partition.clone(),
            epoch,
            inbox,
            load,
            committed,
        }]));
    }

    pub(crate) fn send(&self, message: SourceMessage) {
        if let Some(feed) = self.feeds.get(&message.partition) {
            let _pause = feed.load.add(message.size()); // The test decides how much it sends.
            // A partition that was handed over takes no more, as with a real source.
            drop(feed.inbox.send(Arc::new(message)));
        }
    }

    pub(crate) async fn closed(&self, partition: &TopicPartition) {
        if let Some(feed) = self.feeds.get(partition) {
            feed.inbox.closed().await;
        }
    }

    pub(crate) fn load(&self, partition: &TopicPartition) -> Option<&Load> {
        self.feeds.get(partition).map(|feed| &*feed.load)
    }

    /// Which assignment of it was the last.
    pub(crate) fn epoch(&self, partition: &TopicPartition) -> Option<u64> {
        self.feeds.get(partition).map(|feed| feed.epoch)
    }

    pub(crate) fn revoke(&self, partition: TopicPartition, grace: Duration) {
        lock(&self.revoked).insert(partition.clone());
        self.tell(SourceEvent::Revoked { partitions: vec![partition], grace });
    }

    pub(crate) fn lose(&self, partition: TopicPartition) {
        lock(&self.revoked).remove(&partition);
        self.tell(SourceEvent::Lost { partitions: vec![partition.clone()] });
        self.tell(SourceEvent::Released { partitions: vec![partition] });
    }

    pub(crate) fn tell(&self, event: SourceEvent) {
        // The pipeline may have ended: then the test looks at what it left.
        drop(self.events.send(event));
    }
}

/// The partition that is handed over.
fn answered(command: &SourceCommand) -> Option<TopicPartition> {
    match command {
        SourceCommand::HandOver { partition, .. } => Some(partition.clone()),
        _ => None,
    }
}
