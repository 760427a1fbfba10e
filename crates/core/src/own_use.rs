//! Whether somebody else asks a model server, told from how much goes over their connections to it. Nothing of what is
//! said is looked at.
//!
//! A prompt and a question after the server's health look much alike from here; what differs is the answer. What a server
//! has ready comes at once and is over; what it must compute is waited for, and comes in pieces. So a question is own use when
//!
//! - it is longer than any that only asks how the server is, or
//! - it still waits when a question of ours that came after it, after something the server has ready, is answered, or
//! - it still waits after [`PATIENCE`], or
//! - its answer goes on and on.
//!
//! How own use pauses sharing is the policy's.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One connection to a server, as the server's side of it counts; bytes since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Who asks.
    pub peer: SocketAddr,
    /// Bytes that reached the server.
    pub received: u64,
    /// Bytes that the server sent.
    pub sent: u64,
}

/// A question of this many bytes carries a body: a browser's `GET`, cookies of other programs on this machine included,
/// stays below.
pub const LONG: u64 = 4096;

/// Fewer bytes than these are no request with a prompt, but a ping of a connection that is kept.
pub const SHORT: u64 = 64;

/// The parts of one request, its head and its body, come together; what comes later than this is another one, or another ping.
pub const TOGETHER: Duration = Duration::from_millis(200);

/// A server that has not said within this time what it has ready is overrun: whoever waits for it waits for us. A step over
/// a long prompt, during which llama.cpp answers nobody, is mostly shorter, and nothing could end it sooner.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// An answer that comes over this time is computed as it comes. A web page of some megabytes is across a loopback sooner.
pub const STREAM: Duration = Duration::from_millis(100);

/// Pieces of an answer, each seen by itself, that make it one that is computed as it comes.
pub const PIECES: u32 = 4;

/// The host who reads an answer or types the next question is still using the server for this long.
pub const LINGER: Duration = Duration::from_secs(2);

/// Whoever has waited for this long has gone without a word, or waits for something else than an answer.
pub const FORGOTTEN: Duration = Duration::from_secs(600);

/// Hears all conversations with one server.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    open: BTreeMap<SocketAddr, Open>,
    listened: bool,
    used: Option<Instant>,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nobody asks anything that matters.
    Quiet,
    /// Somebody asked before this look, and waits. A question of ours, after something the server has ready, tells what it is: see
    /// [`Ear::answered`].
    Waiting,
    /// The server is used.
    Use,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    received: u64,
    sent: u64,
    question: Option<Question>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    since: Instant,
    /// When the last of its bytes came.
    grew: Instant,
    bytes: u64,
    /// When the answer's first and last piece were seen, and how many were.
    answer: Option<(Instant, Instant, u32)>,
    used: bool,
}

impl Ear {
    /// Takes over what is seen now.
    pub fn hear(&mut self, conversations: &[Conversation], now: Instant) -> Heard {
        self.open.retain(|peer, _| conversations.iter().any(|it| it.peer == *peer));
        for seen in conversations {
            // What was said before anybody listened is unknown; only an answer that has not begun tells of a question.
            let before = if self.listened || seen.sent == 0 { (0, 0) } else { (seen.received, seen.sent) };
            let open = self.open.entry(seen.peer).or_insert(Open {
                received: before.0,
                sent: before.1,
                question: None,
            });
            open.hear(seen, now);
        }
        self.listened = true;
        self.judge(now)
    }

    /// A question of ours that was asked at `asked`, after something the server has ready, is answered. `conversations`
    /// were looked at after that: whoever asked before us and still waits, waits for something that is computed.
    pub fn answered(&mut self, asked: Instant, conversations: &[Conversation], now: Instant) -> Heard {
        self.hear(conversations, now);
        for question in self.open.values_mut().filter_map(|it| it.question.as_mut()) {
            question.used |= question.waits() && question.since <= asked;
        }
        self.judge(now)
    }

    fn judge(&mut self, now: Instant) -> Heard {
        let mut waiting = false;
        for question in self.open.values_mut().filter_map(|it| it.question.as_mut()) {
            question.used |= question.is_use(now);
            if question.used && question.goes_on(now) {
                self.used = Some(now);
            }
            // What is answered by the next look needs no question of ours.
            let waits = question.waits() && question.bytes >= SHORT && question.since < now;
            waiting |= waits && question.goes_on(now);
        }
        match self.used {
            Some(last) if now.saturating_duration_since(last) < LINGER => Heard::Use,
            _ if waiting => Heard::Waiting,
            _ => Heard::Quiet,
        }
    }
}

impl Open {
    fn hear(&mut self, seen: &Conversation, now: Instant) {
        let (asked, answered) = (seen.received.saturating_sub(self.received), seen.sent > self.sent);
        (self.received, self.sent) = (seen.received, seen.sent);
        if asked > 0 {
            match &mut self.question {
                Some(question) if question.goes_on_with(now) => {
                    question.bytes += asked;
                    question.grew = now;
                }
                question => *question = Some(Question::new(asked, now)),
            }
        }
        // The answer may have come between two looks, with the question.
        if answered && let Some(question) = &mut self.question {
            let (first, _, pieces) = question.answer.unwrap_or((now, now, 0));
            question.answer = Some((first, now, pieces + 1));
        } else if answered {
            // Of a question from before anybody listened.
            let answer = Some((now, now, 1));
            self.question = Some(Question { answer, ..Question::new(SHORT, now) });
        }
    }
}

impl Question {
    fn new(bytes: u64, since: Instant) -> Self {
        Self { since, grew: since, bytes, answer: None, used: false }
    }

    fn waits(&self) -> bool {
        self.answer.is_none()
    }

    /// Whether bytes that come now are more of it.
    fn goes_on_with(&self, now: Instant) -> bool {
        self.waits() && (self.bytes >= SHORT || now.saturating_duration_since(self.grew) <= TOGETHER)
    }

    /// Whether somebody may still be there for it: it waits, or its answer grew just now.
    fn goes_on(&self, now: Instant) -> bool {
        match self.answer {
            None => now.saturating_duration_since(self.since) < FORGOTTEN,
            Some((_, last, _)) => last == now,
        }
    }

    fn is_use(&self, now: Instant) -> bool {
        if self.bytes < SHORT {
            return false;
        }
        self.bytes >= LONG
            || match self.answer {
                None => now.saturating_duration_since(self.since) >= PATIENCE,
                Some((first, last, pieces)) => pieces >= PIECES && last.duration_since(first) >= STREAM,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server, one connection, and a look every 10 ms.
    struct Room {
        ear: Ear,
        now: Instant,
        there: Option<(u64, u64)>,
    }

    impl Room {
        fn new() -> Self {
            let mut ear = Ear::default();
            let now = Instant::now();
            assert_eq!(ear.hear(&[], now), Heard::Quiet);
            Self { ear, now, there: None }
        }

        fn seen(&self) -> Vec<Conversation> {
            let peer = "127.0.0.1:50000".parse().unwrap();
            self.there.iter().map(|&(received, sent)| Conversation { peer, received, sent }).collect()
        }

        fn says(&mut self, bytes: u64) -> Heard {
            self.there.get_or_insert_default().0 += bytes;
            self.look()
        }

        fn hears(&mut self, bytes: u64) -> Heard {
            self.there.get_or_insert_default().1 += bytes;
            self.look()
        }

        fn look(&mut self) -> Heard {
            self.now += Duration::from_millis(10);
            self.ear.hear(&self.seen(), self.now)
        }

        fn waits(&mut self, time: Duration) -> Heard {
            let until = self.now + time;
            let mut heard = self.look();
            while self.now < until {
                heard = self.look();
            }
            heard
        }

        fn ours_is_answered(&mut self, asked: Instant) -> Heard {
            self.now += Duration::from_millis(1);
            self.ear.answered(asked, &self.seen(), self.now)
        }
    }

    #[test]
    fn a_prompt_that_waits_while_a_later_question_is_answered_is_use() {
        let mut room = Room::new();
        assert_eq!(room.says(300), Heard::Quiet, "it may be answered by the next look");
        assert_eq!(room.look(), Heard::Waiting);
        let asked = room.now;
        assert_eq!(room.ours_is_answered(asked), Heard::Use);
    }

    #[test]
    fn a_prompt_is_use_within_the_patience_even_if_the_server_answers_nobody() {
        let mut room = Room::new();
        room.says(300);
        assert_eq!(room.waits(PATIENCE), Heard::Use);
    }

    #[test]
    fn a_long_question_is_use_at_once() {
        assert_eq!(Room::new().says(LONG), Heard::Use);
    }

    #[test]
    fn a_page_that_polls_every_second_is_no_use() {
        let mut room = Room::new();
        for _ in 0..100 {
            room.says(600);
            assert_eq!(room.look(), Heard::Waiting);
            let asked = room.now;
            assert_eq!(room.hears(2000), Heard::Quiet);
            assert_eq!(room.ours_is_answered(asked), Heard::Quiet);
            assert_eq!(room.waits(Duration::from_secs(1)), Heard::Quiet);
        }
    }

    #[test]
    fn a_question_that_came_after_ours_is_not_judged_by_it() {
        let mut room = Room::new();
        let asked = room.now;
        room.says(300);
        assert_eq!(room.ours_is_answered(asked), Heard::Waiting);
    }

    #[test]
    fn a_socket_that_only_pings_is_no_use() {
        let mut room = Room::new();
        for _ in 0..60 {
            assert_eq!(room.says(6), Heard::Quiet);
            room.waits(Duration::from_secs(1));
        }
    }

    #[test]
    fn an_answer_that_streams_is_use_although_it_began_at_once() {
        let mut room = Room::new();
        room.says(300);
        let heard: Vec<Heard> = (0..20).map(|_| room.hears(200)).collect();
        assert_eq!(heard.last(), Some(&Heard::Use));
    }

    #[test]
    fn an_answer_that_began_before_anybody_listened_is_use() {
        let mut room = Room { ear: Ear::default(), now: Instant::now(), there: Some((300, 4000)) };
        assert_eq!(room.look(), Heard::Quiet, "it may be over");
        let heard: Vec<Heard> = (0..20).map(|_| room.hears(200)).collect();
        assert_eq!(heard.last(), Some(&Heard::Use));
    }

    #[test]
    fn a_prompt_that_waited_before_anybody_listened_is_heard() {
        let mut room = Room { ear: Ear::default(), now: Instant::now(), there: Some((300, 0)) };
        room.look();
        assert_eq!(room.look(), Heard::Waiting);
    }

    #[test]
    fn a_page_of_megabytes_is_no_use() {
        let mut room = Room::new();
        room.says(600);
        for _ in 0..8 {
            assert_ne!(room.hears(500_000), Heard::Use);
        }
    }

    #[test]
    fn use_lasts_while_the_answer_comes_and_a_moment_longer() {
        let mut room = Room::new();
        room.says(LONG);
        for _ in 0..200 {
            assert_eq!(room.hears(100), Heard::Use);
        }
        room.there = None;
        assert_eq!(room.look(), Heard::Use);
        assert_eq!(room.waits(LINGER), Heard::Quiet);
    }

    #[test]
    fn a_whole_answer_that_is_computed_for_minutes_is_use_to_its_end() {
        let mut room = Room::new();
        room.says(300);
        assert_eq!(room.waits(Duration::from_secs(120)), Heard::Use);
        assert_eq!(room.hears(5000), Heard::Use);
        assert_eq!(room.waits(LINGER), Heard::Quiet);
    }
}
