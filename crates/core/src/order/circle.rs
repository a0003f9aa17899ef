//! Which messages of a window cannot wait for each other.
//!
//! Read "needs" as an arrow. The start of a message needs the end of the one before it in line; the end
//! of a message needs its start and the start of its tasks; the start of a task needs the start of all
//! its messages. What can be reached from itself along these arrows is on a circle. Where the start
//! of a message and the end of another are on the same circle, the one cannot wait for the other. Nothing
//! else is touched.

use std::{collections::HashMap, iter};

use bytes::Bytes;

use crate::Offset;

/// The circles of its window that start and end of a message are on. A number means nothing by itself,
/// and most occur once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Circles {
    pub start: usize,
    pub end: usize,
}

/// The circles of each message of `window` (offset and key, by offset). `tasks` names the messages of
/// each task that stands for several.
pub(super) fn find(window: &[(Offset, Bytes)], tasks: &[&[Offset]]) -> Vec<Circles> {
    let circle = if tasks.is_empty() {
        (0..2 * window.len()).collect() // Without them there is none.
    } else {
        components(&needs(window, tasks))
    };
    let (starts, ends) = circle.split_at(window.len());
    iter::zip(starts, ends).map(|(&start, &end)| Circles { start, end }).collect()
}

/// The arrows from each node: the starts of the messages, then their ends, then the starts of the tasks.
fn needs(window: &[(Offset, Bytes)], tasks: &[&[Offset]]) -> Vec<Vec<usize>> {
    let count = window.len();
    let mut last: HashMap<&Bytes, usize> = HashMap::new();
    let before = iter::zip(0.., window).map(|(message, (_, key))| last.insert(key, message));
    let mut needs: Vec<Vec<usize>> =
        before.map(|before| before.map(|before| count + before).into_iter().collect()).collect();
    needs.extend((0..count).map(|message| vec![message]));
    for links in tasks {
        let task = needs.len();
        let index = |offset: &Offset| window.binary_search_by_key(offset, |(at, _)| *at).ok();
        let links: Vec<usize> = links.iter().filter_map(index).collect();
        for message in &links {
            needs[count + message].push(task);
        }
        needs.push(links);
    }
    needs
}

/// Gives two nodes the same number, below that of the nodes, if each can be reached from the other:
/// the strongly connected components, by Tarjan's algorithm. Without recursion: a line can be as long
/// as a window.
fn components(edges: &[Vec<usize>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let mut component = vec![NONE; edges.len()];
    let mut visited = vec![NONE; edges.len()]; // As the how-manieth.
    let mut lowest = vec![NONE; edges.len()]; // The first visited of the open ones it reaches.
    let (mut open, mut visits) = (Vec::new(), 0);
    for root in 0..edges.len() {
        let mut path = if visited[root] == NONE { vec![(root, 0)] } else { Vec::new() };
        while let Some((node, edge)) = path.last_mut() {
            let node = *node;
            if *edge == 0 {
                (visited[node], lowest[node]) = (visits, visits);
                visits += 1;
                open.push(node);
            }
            let to = edges[node].get(*edge).copied();
            *edge += 1;
            match to {
                Some(to) if visited[to] == NONE => path.push((to, 0)),
                Some(to) if component[to] == NONE => lowest[node] = lowest[node].min(visited[to]),
                Some(_) => {}
                None => {
                    path.pop();
                    if let Some((parent, _)) = path.last() {
                        lowest[*parent] = lowest[*parent].min(lowest[node]);
                    }
                    if lowest[node] == visited[node] {
                        let first = open.iter().rposition(|&other| other == node).unwrap_or(0);
                        open.drain(first..).for_each(|other| component[other] = node);
                    }
                }
            }
        }
    }
    component
}
