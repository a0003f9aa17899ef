//! What only a test that plays the source can do: choose offsets, take partitions, look into the book.

use std::{
    panic::Location,
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar_core::{
    SourceMessage, TopicPartition,
    backpressure::Load,
    source::{Position, SourceEvent, SourceFailure},
};

use crate::{
    Book, HandedOver, World, lock,
    origin::Origin,
    patience::{PATIENCE, wait},
    source::TestSource,
};

/// In memory alone: with `DRAKKAR_TEST_BROKER` these panic. A test that needs them says
/// [`in_memory`](crate::WorldBuilder::in_memory).
impl World {
    /// Assigns another partition, or one that was taken, from `committed` on. Nothing that was produced
    /// earlier is read again; see [`World::give_back`].
    #[track_caller]
    pub fn assign(&mut self, partition: i32, committed: Option<Position>) {
        let (id, limits) = (TopicPartition::new(crate::TOPIC, partition), self.setup.limits);
        {
            let mut log = lock(&self.state.log);
            log.assigned.insert(partition);
            if let Some(committed) = &committed {
                log.next.insert(partition, committed.next.0);
            }
        }
        self.played("assign").assign(&id, limits, committed);
    }

    /// Assigns a partition as a broker does: from what is committed; what was produced since is read
    /// (again).
    ///
    /// # Panics
    ///
    /// At a broker.
    #[track_caller]
    pub fn give_back(&mut self, partition: i32) {
        let (id, limits) = (self.state.id(partition), self.setup.limits);
        let committed = self.state.position(partition);
        let next = committed.as_ref().map_or(0, |position| position.next.0);
        let unread = {
            let mut log = lock(&self.state.log);
            log.assigned.insert(partition);
            log.from(partition, next)
        };
        let source = self.played("give_back");
        source.assign(&id, limits, committed);
        for message in unread {
            source.send(message);
        }
    }

    /// Sends this very message.
    ///
    /// # Panics
    ///
    /// When its partition is not there; at a broker.
    #[track_caller]
    pub fn send(&mut self, message: SourceMessage) {
        self.must_be_there(&message.partition);
        lock(&self.state.log).append(message.clone());
        self.played("send").send(message);
    }

    /// Takes a partition away in order; returns its last word.
    ///
    /// # Panics
    ///
    /// When it is not handed over within a minute; at a broker.
    pub async fn revoke(&mut self, partition: i32, grace: Duration) -> HandedOver {
        self.begin_revoke(partition, grace);
        self.handed_over(partition).await
    }

    /// Begins to take a partition away in order.
    ///
    /// # Panics
    ///
    /// At a broker.
    #[track_caller]
    pub fn begin_revoke(&self, partition: i32, grace: Duration) {
        lock(&self.state.log).assigned.remove(&partition);
        self.playing("begin_revoke").revoke(self.state.id(partition), grace);
    }

    /// Waits until a partition takes no more messages because it is being handed over.
    pub async fn draining(&self, partition: i32) {
        self.playing("draining").closed(&self.state.id(partition)).await;
    }

    /// Waits for the last word of a partition, about its last assignment.
    ///
    /// # Panics
    ///
    /// When it is not handed over within a minute; at a broker.
    #[track_caller]
    pub fn handed_over(&mut self, partition: i32) -> impl Future<Output = HandedOver> + Send {
        let id = self.state.id(partition);
        let epoch = self.playing("handed_over").epoch(&id);
        let find = move |book: &Book| {
            let all = book.handed_over.iter();
            let mut of_it = all.filter(|(of, over)| *of == id && Some(over.epoch) == epoch);
            of_it.next().map(|(_, over)| over.clone())
        };
        let (wanted, book) = (find.clone(), self.book_handle());
        let over = self.until("a hand-over", move |book| wanted(book).is_some());
        async move {
            over.await;
            find(&lock(&book)).unwrap_or(HandedOver { epoch: 0, position: None })
        }
    }

    /// Takes a partition away without a hand-over.
    ///
    /// # Panics
    ///
    /// At a broker.
    #[track_caller]
    pub fn lose(&mut self, partition: i32) {
        lock(&self.state.log).assigned.remove(&partition);
        self.playing("lose").lose(self.state.id(partition));
    }

    /// The poll thread cannot go on.
    ///
    /// # Panics
    ///
    /// At a broker.
    #[track_caller]
    pub fn fail_source(&self, message: &str) {
        let failure = SourceFailure { message: message.to_owned() };
        self.playing("fail_source").tell(SourceEvent::Failed(failure));
    }

    /// What the pipeline asked of the source so far.
    ///
    /// # Panics
    ///
    /// At a broker.
    #[track_caller]
    pub fn book<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&lock(&self.playing("book").book))
    }

    /// The book itself, for a look after the world has ended.
    ///
    /// # Panics
    ///
    /// At a broker.
    #[must_use]
    #[track_caller]
    pub fn book_handle(&self) -> Arc<Mutex<Book>> {
        Arc::clone(&self.playing("book_handle").book)
    }

    /// Messages of a partition that are polled and not settled.
    ///
    /// # Panics
    ///
    /// At a broker.
    #[must_use]
    #[track_caller]
    pub fn held(&self, partition: i32) -> usize {
        self.playing("held").load(&self.state.id(partition)).map_or(0, Load::messages)
    }

    /// Waits until the book looks like this.
    ///
    /// # Panics
    ///
    /// When it does not within a minute; at a broker.
    #[track_caller]
    pub fn until<F: Fn(&Book) -> bool + Send + Sync>(
        &mut self,
        what: &str,
        wanted: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let (state, at) = (Arc::clone(&self.state), Location::caller());
        let (what, book) = (what.to_owned(), self.book_handle());
        async move {
            let happened = state.commits.until(|| wanted(&lock(&book)));
            wait(what, &Arc::downgrade(&state), PATIENCE, at, happened).await;
        }
    }

    /// Assigns every partition at the start of a worker. At a broker the group does.
    pub(crate) fn assign_all(&mut self) {
        let count = self.setup.partitions;
        match self.origin {
            Origin::Played(_) => (0..count).for_each(|partition| self.give_back(partition)),
            #[cfg(feature = "kafka")]
            Origin::Broker(_) => lock(&self.state.log).assigned.extend(0..count),
        }
    }

    #[track_caller]
    #[cfg_attr(not(feature = "kafka"), allow(unused_variables))]
    fn played(&mut self, what: &str) -> &mut TestSource {
        match &mut self.origin {
            Origin::Played(source) => source,
            #[cfg(feature = "kafka")]
            Origin::Broker(_) => only_in_memory(what),
        }
    }

    #[track_caller]
    #[cfg_attr(not(feature = "kafka"), allow(unused_variables))]
    fn playing(&self, what: &str) -> &TestSource {
        match &self.origin {
            Origin::Played(source) => source,
            #[cfg(feature = "kafka")]
            Origin::Broker(_) => only_in_memory(what),
        }
    }
}

#[cfg(feature = "kafka")]
#[track_caller]
fn only_in_memory(what: &str) -> ! {
    panic!(
        "World::{what} decides what only a broker and its group can decide, and {} is set: build this \
         world with `.in_memory()`",
        crate::origin::SWITCH
    )
}
