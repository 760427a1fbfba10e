//! A real PulseAudio and a real PipeWire, each with a microphone that hears nothing.

use std::process::{Command, Stdio};
use std::time::Instant;

use idlewatt_presence::{Surroundings, watch};
use tempfile::TempDir;

use crate::rig::{Bus, PATIENCE, Running, Xvfb, options, until_activity, until_says};

pub(crate) struct Sound {
    servers: Vec<Running>,
    runtime: TempDir,
    _bus: Option<Bus>,
}

impl Sound {
    pub(crate) fn pulseaudio(runtime: TempDir) -> Self {
        let mut sound = Self { servers: Vec::new(), runtime, _bus: None };
        let socket = sound.socket();
        let pulseaudio = sound
            .command("pulseaudio")
            .args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm"])
            .arg("--load=module-null-source source_name=microphone")
            .arg("--load=module-null-sink sink_name=speakers")
            .arg(format!("--load=module-native-protocol-unix auth-anonymous=1 socket={socket}"))
            .spawn()
            .expect("pulseaudio (Debian: pulseaudio) runs");
        sound.servers.push(Running(pulseaudio));
        sound
    }

    fn pipewire(runtime: TempDir) -> Self {
        let bus = Bus::start();
        let mut sound = Self { servers: Vec::new(), runtime, _bus: None };
        for server in ["pipewire", "wireplumber", "pipewire-pulse"] {
            let mut command = sound.command(server);
            let process = command.env("DBUS_SESSION_BUS_ADDRESS", &bus.address).spawn();
            sound.servers.push(Running(process.expect("Debian's pipewire, wireplumber, pipewire-pulse run")));
            // The others speak to the first, as its socket is what starts them on a desktop.
            let begun = Instant::now();
            while !sound.runtime.path().join("pipewire-0").exists() {
                assert!(begun.elapsed() < PATIENCE, "pipewire does not start");
                std::thread::yield_now();
            }
        }
        sound.device("microphone", "media.class=Audio/Source/Virtual");
        sound.device("speakers", "media.class=Audio/Sink");
        sound._bus = Some(bus);
        sound
    }

    /// Makes a device once the server takes orders.
    fn device(&self, name: &str, class: &str) {
        let begun = Instant::now();
        loop {
            let mut pactl = self.command("pactl");
            pactl.args(["load-module", "module-null-sink", &format!("sink_name={name}"), class]);
            if pactl.status().expect("pactl (Debian: pulseaudio-utils) runs").success() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "no {name}");
        }
    }

    fn socket(&self) -> String {
        self.runtime.path().join("pulse/native").display().to_string()
    }

    /// A program in a session of its own.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.runtime.path())
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .env("PULSE_SERVER", format!("unix:{}", self.socket()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// A program that records from `source`.
    fn record(&self, source: &str, properties: &[&str]) -> Running {
        let mut parec = self.command("parec");
        parec.args(["--device", source]).args(properties.iter().map(|it| format!("--property={it}")));
        Running(parec.spawn().expect("parec (Debian: pulseaudio-utils) runs"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_listens_through_pulseaudio_is_a_call_and_one_that_hears_the_speakers_is_not() {
    calls(Sound::pulseaudio).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_listens_through_pipewire_is_a_call_and_one_that_hears_the_speakers_is_not() {
    calls(Sound::pipewire).await;
}

async fn calls(start: fn(TempDir) -> Sound) {
    let display = Xvfb::start(None);
    let runtime = tempfile::tempdir().unwrap();
    let surroundings = Surroundings { runtime: Some(runtime.path().to_owned()), ..display.surroundings() };
    let watch = watch(options(surroundings));
    until_says(&watch, "microphone", "no sound server").await;

    // It is found when it starts.
    let sound = start(runtime);
    until_says(&watch, "microphone", "no program listens").await;
    for _ in 0..2 {
        let call = sound.record("microphone", &["application.name=Mumble"]);
        let activity = until_activity(&watch, |it| it.call.is_some()).await;
        assert_eq!(activity.call.unwrap().name, "Mumble");
        drop(call);
        until_activity(&watch, |it| it.call.is_none()).await;
    }
    let meter = sound.record("microphone", &["application.id=org.PulseAudio.pavucontrol"]);
    let recorder = sound.record("speakers.monitor", &["application.name=Recorder"]);
    // Whoever is heard after them shows that they were seen, and no calls.
    let call = sound.record("microphone", &["application.name=Mumble"]);
    let activity = until_activity(&watch, |it| it.call.is_some()).await;
    assert_eq!(activity.call.unwrap().name, "Mumble");
    drop(call);
    until_activity(&watch, |it| it.call.is_none()).await;
    drop(meter);
    drop(recorder);

    let call = sound.record("microphone", &["application.name=Mumble"]);
    until_activity(&watch, |it| it.call.is_some()).await;
    drop(sound);
    until_activity(&watch, |it| it.call.is_none()).await;
    until_says(&watch, "microphone", "the sound server").await;
    drop(call);
}
