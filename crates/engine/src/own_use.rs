//! The host's own use of a model server beside Idlewatt: heard while shared work runs there, so that shared work ends at
//! once and the host's prompt is next.
//!
//! Where the system counts the bytes of others' connections, that is what is listened to, and only while shared requests
//! run or own use lasts. Where it does not, the server is asked gently how much it works on, and not at all while the system
//! says that nobody else is connected; a prompt that waits for a slot shows in no such answer, so there own use is seen only
//! once a slot is free. What is heard becomes a reason of the policy's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use idlewatt_core::own_use::{Ear, Heard};
use idlewatt_devices::connections_of_others;
use idlewatt_servers::{ModelServer, Traffic, is_loopback};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use url::Url;

use crate::node::Node;

/// Between two looks at connections while shared work runs: what the host waits for at most before it is noticed.
const LOOK: Duration = Duration::from_millis(10);
/// Between two looks while nothing shared runs and own use lasts.
const LOOK_GENTLY: Duration = Duration::from_millis(250);
/// Between two questions to a server whose connections cannot be seen, and to one to which somebody is connected.
const ASK: Duration = Duration::from_secs(1);
const ASK_SOON: Duration = Duration::from_millis(250);
/// So many answers in a row must tell of work that is not ours: one alone may be of a request that has just ended.
const TWICE: u32 = 2;
/// A question of ours to a server is given up after this.
const ANSWERED: Duration = Duration::from_secs(5);

/// Whether the host uses a model server, as far as was heard.
#[derive(Debug, Default)]
pub(crate) struct OwnUse {
    lasts: watch::Sender<bool>,
    /// A server has answered a question of ours.
    answered: Arc<Notify>,
}

/// A server whose models are shared.
#[derive(Debug)]
pub(crate) struct AtWork {
    pub(crate) server: Arc<dyn ModelServer>,
    /// Shared requests that run there.
    pub(crate) running: u32,
    /// Whether it stops when a connection closes, as far as it was tried.
    pub(crate) cancels: bool,
}

impl OwnUse {
    /// Whether the host uses a model server.
    pub(crate) fn lasts(&self) -> bool {
        *self.lasts.borrow()
    }
}

impl Node {
    /// Whether the host uses a model server, beside Idlewatt or through the endpoint on this machine.
    pub(crate) fn own_use_lasts(&self) -> bool {
        self.own_use.lasts() || *self.slots.own().borrow() > 0
    }

    /// How the host's own use of each shared server is noticed, for `doctor`, and whether it is at once.
    pub(crate) fn own_use_sight(&self) -> Vec<(bool, String)> {
        let shared = self.services.at_work(&self.slots, self.own_server.url().as_ref());
        let said = |(url, at_work): (&Url, &AtWork)| {
            let label = at_work.server.label();
            match Room::new(url, at_work).sense {
                Sense::Bytes { .. } => {
                    (true, format!("Your own use of {label} is noticed at once, by its connections."))
                }
                Sense::Work { .. } => (
                    false,
                    format!(
                        "Your own use of {label} is noticed within seconds where the server tells how much it works on, \
                             and not while a prompt of yours waits for a slot."
                    ),
                ),
                Sense::Nothing => (
                    false,
                    format!(
                        "Your own use of {label} is not noticed: neither the system tells of its connections, nor does \
                             the server stop when one closes."
                    ),
                ),
            }
        };
        shared.iter().map(said).collect()
    }

    /// Listens while shared requests run, and decides anew when own use begins and ends. Ends when the node stops.
    pub(crate) async fn keep_hearing(self: Arc<Self>) {
        let mut shared = self.slots.shared();
        let mut rooms: BTreeMap<Url, Room> = BTreeMap::new();
        loop {
            let mut at_work = self.services.at_work(&self.slots, self.own_server.url().as_ref());
            at_work.retain(|_, it| it.running > 0);
            rooms.retain(|url, room| room.used || at_work.contains_key(url));
            let quiet = rooms.is_empty() && at_work.is_empty();
            for (url, at_work) in &at_work {
                rooms.entry(url.clone()).or_insert_with(|| Room::new(url, at_work)).running = at_work.running;
            }
            for (url, room) in &mut rooms {
                if !at_work.contains_key(url) {
                    room.running = 0;
                }
                room.listen(&self.own_use.answered, Instant::now());
            }
            let lasts = rooms.values().any(|room| room.used);
            if self.own_use.lasts.send_replace(lasts) != lasts {
                self.decide();
                // What runs has changed by that.
                continue;
            }
            let hears = rooms.values().any(|it| it.running > 0 && matches!(it.sense, Sense::Bytes { .. }));
            let later = async {
                if quiet {
                    // The sender lives as long as the node.
                    drop(shared.wait_for(|running| *running > 0).await);
                } else {
                    tokio::time::sleep(if hears { LOOK } else { LOOK_GENTLY }).await;
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.own_use.answered.notified() => {}
                () = later => {}
            }
        }
    }
}

/// One server that is listened to.
struct Room {
    server: Arc<dyn ModelServer>,
    running: u32,
    used: bool,
    sense: Sense,
}

enum Sense {
    /// The bytes of others' connections.
    Bytes { traffic: Traffic, ear: Ear, greeting: Option<(Instant, oneshot::Receiver<()>)> },
    /// What the server says that it works on.
    Work {
        /// Its port, where it runs on this machine.
        port: Option<u16>,
        asked: Instant,
        answer: Option<oneshot::Receiver<Option<u32>>>,
        most: u32,
        more: u32,
    },
    /// Nothing tells.
    Nothing,
}

impl Room {
    fn new(url: &Url, at_work: &AtWork) -> Self {
        let port = url.port_or_known_default().filter(|_| is_loopback(url));
        let traffic = port.and_then(|port| {
            Traffic::of_port(port)
                .inspect_err(|error| tracing::debug!(%error, "connections are not told of"))
                .ok()
        });
        let sense = match traffic {
            Some(traffic) => Sense::Bytes { traffic, ear: Ear::default(), greeting: None },
            None if at_work.cancels => {
                Sense::Work { port, asked: Instant::now(), answer: None, most: 0, more: 0 }
            }
            // Work that goes on after its request has ended cannot be told from the host's.
            None => Sense::Nothing,
        };
        Self { server: Arc::clone(&at_work.server), running: at_work.running, used: false, sense }
    }

    /// Takes in what there is to hear now. Waits for nobody.
    fn listen(&mut self, answered: &Arc<Notify>, now: Instant) {
        let used = match &mut self.sense {
            Sense::Bytes { traffic, ear, greeting } => {
                let Ok(seen) = traffic.look() else {
                    self.sense = Sense::Nothing;
                    self.used = false;
                    return;
                };
                let heard = match greeting.take_if(|(_, answer)| !answer.is_empty()) {
                    Some((asked, _)) => ear.answered(asked, &seen, now),
                    None => ear.hear(&seen, now),
                };
                if heard == Heard::Waiting && greeting.is_none() {
                    *greeting =
                        Some((now, ask(answered, &self.server, |it| async move { it.greet().await })));
                }
                heard == Heard::Use
            }
            Sense::Work { port, asked, answer, most, more } => {
                let pause = pause(port.and_then(connections_of_others));
                *most = self.running.max(*most);
                if let Some(mut answer) = answer.take_if(|it| !it.is_empty()) {
                    *more = match answer.try_recv() {
                        Ok(Some(busy)) if busy > *most => *more + 1,
                        // Whoever tells nothing any more is not used for ever.
                        _ => 0,
                    };
                    *most = self.running;
                }
                if pause.is_none() {
                    *more = 0;
                }
                let due = pause.is_some_and(|pause| now.saturating_duration_since(*asked) >= pause);
                if answer.is_none() && due {
                    *asked = now;
                    *answer = Some(ask(answered, &self.server, |it| async move { it.busy().await }));
                }
                *more >= TWICE
            }
            Sense::Nothing => false,
        };
        if used != self.used {
            tracing::info!(server = self.server.label(), used, "the host's own use of a model server");
            self.used = used;
        }
    }
}

/// Between two questions about a server's work, as many as others are connected to it where that is known; `None` asks
/// nothing.
fn pause(others: Option<usize>) -> Option<Duration> {
    match others {
        Some(0) => None,
        Some(_) => Some(ASK_SOON),
        None => Some(ASK),
    }
}

/// Asks a server in a task of its own, which says when it is done.
fn ask<T, F>(
    answered: &Arc<Notify>,
    server: &Arc<dyn ModelServer>,
    question: impl FnOnce(Arc<dyn ModelServer>) -> F,
) -> oneshot::Receiver<T>
where
    T: Default + Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (answered, question) = (Arc::clone(answered), question(Arc::clone(server)));
    let (sender, answer) = oneshot::channel();
    tokio::spawn(async move {
        // Nobody waits where the room was left meanwhile.
        drop(sender.send(timeout(ANSWERED, question).await.unwrap_or_default()));
        answered.notify_one();
    });
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use idlewatt_servers::{Call, Kind, Model, ServerAnswer, ServerError};

    use super::*;

    /// A server on another machine that says how much it works on.
    #[derive(Debug)]
    struct Elsewhere {
        url: Url,
        busy: AtomicU32,
    }

    #[async_trait]
    impl ModelServer for Elsewhere {
        fn kind(&self) -> Kind {
            Kind::LlamaCpp
        }
        fn url(&self) -> &Url {
            &self.url
        }
        async fn models(&self) -> Result<Vec<Model>, ServerError> {
            Ok(Vec::new())
        }
        async fn busy(&self) -> Option<u32> {
            Some(self.busy.load(Ordering::Relaxed))
        }
        async fn call(&self, _model: &Model, _call: Call<'_>) -> Result<ServerAnswer, ServerError> {
            Err(ServerError::Unreachable)
        }
    }

    struct Asked {
        server: Arc<Elsewhere>,
        room: Room,
        answered: Arc<Notify>,
        now: Instant,
    }

    impl Asked {
        fn new(cancels: bool) -> Self {
            let url: Url = "http://192.0.2.1:8080/".parse().unwrap();
            let server = Arc::new(Elsewhere { url: url.clone(), busy: AtomicU32::new(0) });
            let at_work = AtWork { server: server.clone(), running: 2, cancels };
            Self { server, room: Room::new(&url, &at_work), answered: Arc::default(), now: Instant::now() }
        }

        /// The server is asked once more, and works on so much.
        async fn says(&mut self, busy: u32) -> bool {
            self.server.busy.store(busy, Ordering::Relaxed);
            self.now += ASK;
            self.room.listen(&self.answered, self.now);
            self.answered.notified().await;
            self.room.listen(&self.answered, self.now);
            self.room.used
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_heard_is_asked_and_one_answer_alone_is_not_believed() {
        let mut asked = Asked::new(true);
        assert!(!asked.says(2).await, "that is ours");
        assert!(!asked.says(3).await, "one of ours may have ended just now");
        assert!(asked.says(3).await);
        assert!(!asked.says(2).await);
        asked.room.running = 1;
        assert!(!asked.says(2).await, "one of ours ended since the last answer");
        assert!(!asked.says(1).await);
    }

    #[test]
    fn a_server_to_which_nobody_else_is_connected_is_not_asked() {
        assert_eq!([Some(0), Some(2), None].map(pause), [None, Some(ASK_SOON), Some(ASK)]);
    }

    #[tokio::test]
    async fn a_server_that_works_on_after_its_connection_closed_tells_nothing() {
        assert!(matches!(Asked::new(false).room.sense, Sense::Nothing));
    }
}
