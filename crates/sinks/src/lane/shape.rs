//! How much a lane takes, and how it is cut into batches: by kind of sink.

/// How much a lane takes, and how it is cut into batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Payloads taken and not answered.
    pub items: usize,
    /// Bytes taken and not answered.
    pub bytes: usize,
    /// Payloads of one batch.
    pub batch_items: usize,
    /// Bytes of one batch; a larger payload makes a batch of its own.
    pub batch_bytes: usize,
    /// Batches under way at once; with one, order is kept.
    pub batches: usize,
    /// What becomes of a payload the sink will never accept.
    pub permanent: Permanent,
}

/// What a lane does with a payload that the sink will never accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permanent {
    /// Its caller is told.
    Refuse,
    /// It is held all the same: there is nowhere else for it to go.
    Hold,
}

impl Shape {
    /// The client batches by itself: many small writes at once.
    pub(crate) const KAFKA: Self = Self {
        items: 16_384,
        bytes: 32 << 20,
        batch_items: 1_000,
        batch_bytes: 4 << 20,
        batches: 64,
        permanent: Permanent::Refuse,
    };
    /// One write at a time, of everything that waits: group commit.
    pub(crate) const FILE: Self = Self {
        items: 16_384,
        bytes: 32 << 20,
        batch_items: 4_096,
        batch_bytes: 8 << 20,
        batches: 1,
        permanent: Permanent::Refuse,
    };
    /// Few large statements; one at a time keeps the order of rows.
    pub(crate) const POSTGRES: Self = Self {
        items: 16_384,
        bytes: 32 << 20,
        batch_items: 1_000,
        batch_bytes: 4 << 20,
        batches: 1,
        permanent: Permanent::Refuse,
    };
    /// As [`Self::POSTGRES`].
    pub(crate) const MONGO: Self = Self::POSTGRES;
    /// One pipeline at a time keeps the order of commands.
    pub(crate) const REDIS: Self = Self::POSTGRES;
    /// One request per payload unless said otherwise; a few at a time.
    pub(crate) const HTTP: Self = Self { batch_items: 1, batches: 8, ..Self::POSTGRES };
    /// What a sink of somebody else's usually bears.
    pub(crate) const CUSTOM: Self = Self {
        items: 16_384,
        bytes: 32 << 20,
        batch_items: 500,
        batch_bytes: 4 << 20,
        batches: 4,
        permanent: Permanent::Refuse,
    };
    /// As [`Self::KAFKA`], but nothing is ever given up.
    pub(crate) const DEAD_LETTER: Self = Self { permanent: Permanent::Hold, ..Self::KAFKA };
}
