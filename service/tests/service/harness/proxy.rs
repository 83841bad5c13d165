//! A TCP proxy that can refuse, freeze, slow and cut connections: the network's bad days.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What the proxy does with connections, old and new.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Passes everything on.
    Pass,
    /// Closes every connection.
    Refuse,
    /// Passes nothing on, but keeps connections open. Where something was swallowed, nothing passes
    /// any more, whatever the rule is then.
    Freeze,
    /// Passes what the server says on this much later.
    Slow(Duration),
    /// Closes a connection instead of passing on bytes of this side that contain the pattern.
    CutOn(Side, &'static [u8]),
    /// Freezes a connection instead of passing on such bytes.
    FreezeOn(Side, &'static [u8]),
    /// Passes everything on with one text in place of another that is as long.
    Rewrite(&'static [(&'static [u8], &'static [u8])]),
}

/// A running proxy. It stops with the test's runtime.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    rule: watch::Sender<Rule>,
    matched: Arc<Mutex<watch::Sender<u32>>>,
}

impl Proxy {
    pub(crate) async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (rule, rules) = watch::channel(Rule::Pass);
        let matched = Arc::new(Mutex::new(watch::channel(0).0));
        let counter = matched.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if matches!(*rules.borrow(), Rule::Refuse) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else {
                    continue;
                };
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                let ended = CancellationToken::new();
                for (side, from, to) in [
                    (Side::Client, client_read, server_write),
                    (Side::Server, server_read, client_write),
                ] {
                    let pump = pump(side, from, to, rules.clone(), counter.clone());
                    let ended = ended.clone();
                    tokio::spawn(async move {
                        // One half's end is the end of both.
                        tokio::select! {
                            () = pump => ended.cancel(),
                            () = ended.cancelled() => {}
                        }
                    });
                }
            }
        });
        Self { port, rule, matched }
    }

    pub(crate) fn set(&self, rule: Rule) {
        self.rule.send_replace(rule);
    }

    /// A receiver that changes when a pattern was seen from now on.
    pub(crate) fn matches(&self) -> watch::Receiver<u32> {
        let mut matches = self.matched.lock().unwrap().subscribe();
        matches.mark_unchanged();
        matches
    }
}

async fn pump(
    side: Side,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut rules: watch::Receiver<Rule>,
    matched: Arc<Mutex<watch::Sender<u32>>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = rules.changed() => {
                if changed.is_err() || matches!(*rules.borrow_and_update(), Rule::Refuse) {
                    return;
                }
                continue;
            }
        };
        let bytes = match read {
            Ok(0) | Err(_) => return,
            Ok(length) => &buffer[..length],
        };
        let rule = *rules.borrow();
        if let (Side::Server, Rule::Slow(late)) = (side, rule) {
            // Any other rule ends the wait.
            let _ = timeout(late, rules.wait_for(|rule| !matches!(rule, Rule::Slow(_)))).await;
        }
        let rule = *rules.borrow();
        let hit = |pattern: &[u8]| bytes.windows(pattern.len()).any(|window| window == pattern);
        match rule {
            Rule::Refuse => return,
            Rule::CutOn(which, pattern) if which == side && hit(pattern) => {
                matched.lock().unwrap().send_modify(|count| *count += 1);
                return;
            }
            Rule::FreezeOn(which, pattern) if which == side && hit(pattern) => {
                matched.lock().unwrap().send_modify(|count| *count += 1);
                return swallow(from).await;
            }
            Rule::Freeze => return swallow(from).await,
            Rule::Rewrite(pairs) => {
                if to.write_all(&rewritten(bytes, pairs)).await.is_err() {
                    return;
                }
            }
            Rule::Pass | Rule::Slow(_) | Rule::CutOn(..) | Rule::FreezeOn(..) => {
                if to.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn rewritten(bytes: &[u8], pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (from, to) in pairs {
        while let Some(at) = bytes.windows(from.len()).position(|window| window == *from) {
            bytes[at..at + from.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// Reads to the end, for nothing.
async fn swallow(mut from: OwnedReadHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while from.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
}
