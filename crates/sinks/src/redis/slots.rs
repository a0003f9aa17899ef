//! Which node of a Redis Cluster serves which keys, as a node of it says.
//!
//! Reads what was answered; nothing here knows a connection.

use std::fmt;

use drakkar_core::SinkError;
use redis::{ConnectionAddr, Value};

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    host: String,
    port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Node {
    /// The node at `address`; a socket in the file system cannot be one.
    pub(super) fn of(address: &ConnectionAddr) -> Option<Self> {
        match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }

    /// Where it is reached in the same way as `like`, encryption included.
    pub(super) fn address(&self, like: &ConnectionAddr) -> ConnectionAddr {
        match like {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: self.host.clone(),
                port: self.port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(self.host.clone(), self.port),
        }
    }

    /// A node as `asked` names it, which may leave out that it means its own host.
    fn named(host: &[u8], port: u16, asked: &Self) -> Option<Self> {
        match host {
            b"" => Some(Self { host: asked.host.clone(), port }),
            b"?" => None, // It has a name that nobody has told it.
            host => Some(Self { host: str::from_utf8(host).ok()?.to_owned(), port }),
        }
    }
}

/// The node that `asked` sends us to: `MOVED 3999 10.0.0.7:6379`, `ASK ...`.
pub(super) fn redirected(error: &SinkError, asked: &Node) -> Option<Node> {
    let (host, port) = error.message.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    Node::named(host.as_bytes(), port.parse().ok()?, asked)
}

/// Who serves what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// First and last slot of a range with its primary, in order.
    ranges: Vec<(u16, u16, Node)>,
    /// All nodes, replicas included.
    nodes: Vec<Node>,
}

/// There are as many slots.
const COUNT: u16 = 16_384;

/// Where `key` belongs: keys with the same text in braces belong together.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let (_, after) = memchr::memchr(b'{', key).map(|at| key.split_at(at + 1))?;
        let end = memchr::memchr(b'}', after)?;
        (0 < end).then(|| &after[..end])
    };
    // CRC-16/XMODEM.
    let crc = tag().unwrap_or(key).iter().fold(0_u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % COUNT
}

impl Slots {
    /// What `asked` answered to `CLUSTER SLOTS`; `None` when it is no such answer.
    pub(super) fn read(answer: &Value, asked: &Node) -> Option<Self> {
        let Value::Array(ranges) = answer else { return None };
        let mut slots = Self::default();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [first, last, primary, replicas @ ..] = &range[..] else { return None };
            let (first, last) = (number(first)?, number(last)?);
            if last < first || COUNT <= last {
                return None;
            }
            if let Some(primary) = node(primary, asked) {
                slots.ranges.push((first, last, primary.clone()));
                slots.nodes.push(primary);
            }
            slots.nodes.extend(replicas.iter().filter_map(|replica| node(replica, asked)));
        }
        slots.ranges.sort_unstable();
        slots.nodes.sort_unstable();
        slots.nodes.dedup();
        Some(slots)
    }

    /// The primary of a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, node) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(node)
    }

    /// The primaries; `None` where a slot has none.
    pub(super) fn owners(&self) -> Option<Vec<&Node>> {
        let mut next = 0;
        for (first, last, _) in &self.ranges {
            if *first != next {
                return None;
            }
            next = last + 1;
        }
        let mut owners: Vec<&Node> = self.ranges.iter().map(|(_, _, node)| node).collect();
        owners.sort_unstable();
        owners.dedup();
        (next == COUNT).then_some(owners)
    }

    /// All nodes, replicas included.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

/// Host and port, and what else it says of itself.
fn node(said: &Value, asked: &Node) -> Option<Node> {
    let Value::Array(said) = said else { return None };
    let [host, port, ..] = &said[..] else { return None };
    let host = match host {
        Value::Nil => b"",
        Value::BulkString(host) => &host[..],
        _ => return None,
    };
    Node::named(host, number(port)?, asked)
}

fn number(said: &Value) -> Option<u16> {
    let Value::Int(number) = said else { return None };
    u16::try_from(*number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Node {
        Node { host: host.to_owned(), port }
    }

    fn shown(host: Value, port: i64) -> Value {
        let id = Value::BulkString(b"09dbe9720cda62f7865eabc5fd8857c5d2678366".to_vec());
        Value::Array(vec![host, Value::Int(port), id, Value::Array(Vec::new())])
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let mut range = vec![Value::Int(first), Value::Int(last)];
        range.extend(nodes);
        Value::Array(range)
    }

    fn three() -> Value {
        Value::Array(vec![
            range(5_461, 10_922, vec![shown(bulk("b"), 2), shown(bulk("e"), 5)]),
            range(0, 5_460, vec![shown(bulk("a"), 1), shown(bulk("d"), 4)]),
            range(10_923, 16_383, vec![shown(bulk("c"), 3)]),
        ])
    }

    proptest::proptest! {
        #[test]
        fn keys_belong_where_others_say_they_do(key: Vec<u8>, tagged in "[a{}]{0,9}") {
            for key in [&key[..], tagged.as_bytes()] {
                let same = redis::cluster_routing::Slot::for_key(key);
                assert_eq!(redis::cluster_routing::Slot::new(slot(key)), Some(same));
            }
        }
    }

    #[test]
    fn keys_belong_where_the_specification_says() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"));
    }

    #[test]
    fn a_slot_is_found_at_the_primary_of_its_range() {
        let slots = Slots::read(&three(), &at("a", 1)).unwrap();
        for (slot, owner) in
            [(0, "a:1"), (5_460, "a:1"), (5_461, "b:2"), (10_923, "c:3"), (16_383, "c:3")]
        {
            assert_eq!(slots.owner(slot).map(ToString::to_string).as_deref(), Some(owner));
        }
        assert_eq!(slots.owners().unwrap(), [&at("a", 1), &at("b", 2), &at("c", 3)]);
        assert_eq!(slots.nodes().len(), 5);
    }

    #[test]
    fn a_slot_that_nobody_serves_is_known_as_that() {
        let first = range(1, 5_000, vec![shown(bulk("a"), 1)]);
        let last = range(5_002, 16_382, vec![shown(bulk("?"), 2)]);
        let slots = Slots::read(&Value::Array(vec![first, last]), &at("a", 1)).unwrap();
        for slot in [0, 5_001, 5_002, 16_383] {
            assert_eq!(slots.owner(slot), None, "{slot}");
        }
        assert_eq!(slots.owners(), None);
        assert_eq!(Slots::read(&Value::Array(Vec::new()), &at("a", 1)).unwrap().owners(), None);
    }

    #[test]
    fn a_node_that_does_not_say_where_it_is_is_where_we_asked() {
        for host in [Value::Nil, bulk("")] {
            let all = Value::Array(vec![range(0, 16_383, vec![shown(host, 7_001)])]);
            let slots = Slots::read(&all, &at("proxy", 7_000)).unwrap();
            assert_eq!(slots.owner(9), Some(&at("proxy", 7_001)));
        }
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        let asked = at("a", 1);
        for answer in [
            Value::Okay,
            Value::Array(vec![Value::Okay]),
            Value::Array(vec![range(0, 16_384, vec![shown(bulk("a"), 1)])]),
            Value::Array(vec![range(0, 5, Vec::new())]),
        ] {
            assert_eq!(Slots::read(&answer, &asked), None, "{answer:?}");
        }
    }

    #[test]
    fn a_redirection_names_the_node_to_ask() {
        let to = |message: &str| redirected(&SinkError::new("MOVED", message), &at("asked", 1));
        assert_eq!(to("3999 10.0.0.7:6381"), Some(at("10.0.0.7", 6381)));
        assert_eq!(to("3999 fe80::1:6381"), Some(at("fe80::1", 6381)));
        assert_eq!(to("3999 :6381"), Some(at("asked", 6381)));
        for nonsense in ["", "3999", "3999 host", "3999 host:port", "3999 ?:6381"] {
            assert_eq!(to(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_node_is_reached_as_the_first_one_was() {
        let like = ConnectionAddr::TcpTls {
            host: "a".to_owned(),
            port: 1,
            insecure: false,
            tls_params: None,
        };
        let ConnectionAddr::TcpTls { host, port, insecure: false, .. } = at("b", 2).address(&like)
        else {
            panic!("it is not encrypted")
        };
        assert_eq!((host.as_str(), port), ("b", 2));
        assert_eq!(Node::of(&like), Some(at("a", 1)));
        assert_eq!(Node::of(&ConnectionAddr::Unix("/run/redis".into())), None);
    }
}
