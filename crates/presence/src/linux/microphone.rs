//! Whether a program listens through a microphone: a call, most of the time. The sound server (PulseAudio, or PipeWire
//! in its clothes) tells who records from what; nothing is recorded here, and no volume is read.
//!
//! The kernel would tell of its own sound cards without a sound server, but not of the headset without a wire that most calls
//! are held with, nor who listens.

use std::convert::Infallible;
use std::ffi::CString;
use std::future::pending;
use std::io::Cursor;
use std::path::Path;

use idlewatt_core::presence::{Activity, App};
use pulseaudio::protocol::{
    self, AuthParams, AuthReply, Command, CommandReply, DESCRIPTOR_SIZE, MAX_VERSION, Prop, Props,
    ProtocolError, SetClientNameReply, SourceInfo, SourceOutputInfo, SubscriptionMask,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::sockets::Socket;
use crate::teller::Teller;

const NAME: &str = "microphone";

/// More than any answer of a sound server with hundreds of streams, bytes.
const MOST: usize = 4 * 1024 * 1024;

/// Bytes of a cookie (`PA_NATIVE_COOKIE_LENGTH` in PulseAudio's `src/pulsecore/native-common.h`).
const COOKIE: usize = 256;

/// Programs that listen only to draw how loud it is, or to pass on what they hear to who really listens: by the id they give
/// themselves. GNOME's own indicator of listening programs leaves out the first two.
const NO_CALLS: [&str; 3] =
    ["org.gnome.VolumeControl", "org.PulseAudio.pavucontrol", "com.github.wwmm.easyeffects"];

#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the sound server is gone ({0})")]
    Gone(#[from] std::io::Error),
    #[error("the sound server does not say ({0})")]
    Protocol(#[from] ProtocolError),
    #[error("the sound server sends too much at once")]
    TooMuch,
}

/// Tells of listening programs whenever the sound server of `runtime` runs.
pub(super) async fn follow(runtime: Option<&Path>, home: Option<&Path>, teller: &Teller) {
    let _part = teller.listening(NAME);
    let Some(runtime) = runtime else {
        teller.unheard(NAME, "no folder of a sound server is known");
        return pending().await;
    };
    let mut socket = Socket::watch(&runtime.join("pulse/native"));
    teller.unheard(NAME, "no sound server runs");
    loop {
        socket.appeared().await;
        let Err(lost) = listen(socket.path(), cookie(home), teller).await;
        teller.unheard(NAME, lost.to_string());
    }
}

/// What proves to PulseAudio that this is the same account. One of another length is a breach of the protocol, where there is
/// none too: PulseAudio then goes by who owns the other end of the socket, as PipeWire always does.
fn cookie(home: Option<&Path>) -> Vec<u8> {
    let cookie = home.and_then(|home| std::fs::read(home.join(".config/pulse/cookie")).ok());
    let mut cookie = cookie.unwrap_or_default();
    cookie.resize(COOKIE, 0);
    cookie
}

async fn listen(socket: &Path, cookie: Vec<u8>, teller: &Teller) -> Result<Infallible, Lost> {
    let wire = UnixStream::connect(socket).await?;
    let mut server = Server { wire, version: MAX_VERSION, asked: 0, changed: false };
    let hello = AuthParams { version: MAX_VERSION, supports_shm: false, supports_memfd: false, cookie };
    let welcome: AuthReply = server.ask(&Command::Auth(hello)).await?;
    server.version = welcome.version.min(MAX_VERSION);
    let mut about = Props::new();
    about.set(Prop::ApplicationName, CString::from(c"Idlewatt"));
    let _: SetClientNameReply = server.ask(&Command::SetClientName(about)).await?;
    server.answer(&Command::Subscribe(SubscriptionMask::SOURCE_OUTPUT)).await?;
    loop {
        server.changed = false;
        let streams: Vec<SourceOutputInfo> = server.ask(&Command::GetSourceOutputInfoList).await?;
        let call = if streams.iter().any(may_be_a_call) {
            let sources: Vec<SourceInfo> = server.ask(&Command::GetSourceInfoList).await?;
            // A sink's monitor hears what the machine plays.
            let is_microphone =
                |index| sources.iter().any(|it| it.index == index && it.monitor_of_sink_index.is_none());
            streams.iter().find(|it| may_be_a_call(it) && is_microphone(it.source_index)).map(app)
        } else {
            None
        };
        let says = if call.is_some() { "a program listens" } else { "no program listens" };
        teller.says(NAME, says, Activity { call, ..Activity::default() });
        while !server.changed {
            server.read().await?;
        }
    }
}

fn may_be_a_call(stream: &SourceOutputInfo) -> bool {
    let id = property(stream, Prop::ApplicationId);
    !stream.corked && !id.is_some_and(|id| NO_CALLS.contains(&id.as_str()))
}

fn app(stream: &SourceOutputInfo) -> App {
    let named = [Prop::ApplicationName, Prop::ApplicationProcessBinary];
    let name = named.into_iter().find_map(|name| property(stream, name));
    App { name: name.unwrap_or_else(|| "a program".to_owned()) }
}

/// A property that is a text, without the zero that ends it.
fn property(stream: &SourceOutputInfo, name: Prop) -> Option<String> {
    let value = stream.props.get(name)?;
    let text = String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned();
    (!text.is_empty()).then_some(text)
}

struct Server {
    wire: UnixStream,
    version: u16,
    /// The number of the last question.
    asked: u32,
    /// Whether it has told of a change since this was last reset.
    changed: bool,
}

impl Server {
    async fn ask<T: CommandReply>(&mut self, question: &Command) -> Result<T, Lost> {
        let answer = self.answer(question).await?;
        Ok(protocol::read_reply_message(&mut Cursor::new(&answer), self.version)?.1)
    }

    /// The answer's whole message.
    async fn answer(&mut self, question: &Command) -> Result<Vec<u8>, Lost> {
        self.asked = self.asked.wrapping_add(1);
        let mut message = Vec::new();
        protocol::write_command_message(&mut message, self.asked, question, self.version)?;
        self.wire.write_all(&message).await?;
        loop {
            match self.read().await? {
                (to, Command::Reply, message) if to == self.asked => return Ok(message),
                (to, Command::Error(error), _) if to == self.asked => {
                    return Err(ProtocolError::ServerError(error).into());
                }
                _ => {}
            }
        }
    }

    /// Reads one message: what it answers, what it is, and the whole of it.
    async fn read(&mut self) -> Result<(u32, Command, Vec<u8>), Lost> {
        let mut message = vec![0; DESCRIPTOR_SIZE];
        self.wire.read_exact(&mut message).await?;
        let length = protocol::read_descriptor(&mut Cursor::new(&message))?.length;
        let length = usize::try_from(length).ok().filter(|length| *length <= MOST).ok_or(Lost::TooMuch)?;
        message.resize(DESCRIPTOR_SIZE + length, 0);
        let (_, body) = message.split_at_mut(DESCRIPTOR_SIZE);
        self.wire.read_exact(body).await?;
        let (to, command) = protocol::read_command_message(&mut Cursor::new(&message), self.version)?;
        self.changed |= matches!(command, Command::SubscribeEvent(_));
        Ok((to, command, message))
    }
}
