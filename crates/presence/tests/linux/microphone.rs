//! A real PulseAudio with a microphone that hears nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use idlewatt_presence::{Surroundings, watch};

use crate::rig::{Running, Xvfb, options, until_activity, until_says};

pub(crate) struct Sound {
    process: Child,
    runtime: tempfile::TempDir,
}

impl Sound {
    pub(crate) fn start(runtime: tempfile::TempDir) -> Self {
        let socket = runtime.path().join("pulse/native");
        let process = Command::new("pulseaudio")
            .args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm"])
            .arg("--load=module-null-source source_name=microphone")
            .arg("--load=module-null-sink sink_name=speakers")
            .arg(format!("--load=module-native-protocol-unix auth-anonymous=1 socket={}", socket.display()))
            .env("HOME", runtime.path())
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pulseaudio (Debian: pulseaudio) runs");
        Self { process, runtime }
    }

    /// A program that records from `source`.
    fn record(&self, source: &str, properties: &[&str]) -> Running {
        let mut parec = Command::new("parec");
        parec.args(["--device", source]).args(properties.iter().map(|it| format!("--property={it}")));
        let recorder = parec
            .env("PULSE_SERVER", format!("unix:{}", socket(self.runtime.path()).display()))
            .env("HOME", self.runtime.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("parec (Debian: pulseaudio-utils) runs");
        Running(recorder)
    }
}

fn socket(runtime: &Path) -> std::path::PathBuf {
    runtime.join("pulse/native")
}

impl Drop for Sound {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_listens_through_the_microphone_is_a_call_and_one_that_hears_the_speakers_is_not() {
    let display = Xvfb::start(None);
    let runtime = tempfile::tempdir().unwrap();
    let surroundings = Surroundings { runtime: Some(runtime.path().to_owned()), ..display.surroundings() };
    let watch = watch(options(surroundings));
    until_says(&watch, "microphone", "no sound server").await;

    // It is found when it starts.
    let sound = Sound::start(runtime);
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
    until_says(&watch, "microphone", "gone").await;
    drop(call);
}
