//! The contract on the real llama.cpp with a small real model, as `script/test` installs them:
//! `cargo nextest run -p idlewatt-servers --run-ignored all -E 'test(real)'`.

mod going_on;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use idlewatt_protocol::Continuation;
use idlewatt_protocol::message::Endpoint;
use idlewatt_servers::{Call, Kind, ServerError, UnloadError, probe};
use url::Url;

use crate::contract::{Host, ask, read, row};

const NAME: &str = "llama.cpp";

struct Real {
    process: Child,
    url: Url,
}

impl Real {
    fn start(port: u16, key: Option<&str>) -> Self {
        Self::start_with(port, key, &[])
    }

    fn start_with(port: u16, key: Option<&str>, options: &[&str]) -> Self {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
        let python = std::env::var_os("IDLEWATT_PYTHON")
            .map_or_else(|| cache.join("idlewatt/py/bin/python"), PathBuf::from);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/servers/llama_server.py");
        let mut command = Command::new(python);
        // On a busy machine several threads wait for each other more than they compute.
        command.arg(script).args(["--parallel", "2", "--threads", "1", "--port", &port.to_string()]);
        command.args(options);
        if let Some(key) = key {
            command.env("LLAMA_API_KEY", key);
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line =
            lines.map_while(Result::ok).find_map(|it| Some(it.strip_prefix("listening on ")?.to_owned()));
        Self { process, url: line.unwrap().parse().unwrap() }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the real llama.cpp, which script/test installs"]
async fn the_real_llama_cpp_keeps_the_contract() {
    let ok = |check: &str| row(NAME, check, "run");
    let (host, real) = (Host::new(), Real::start(0, None));
    let url = real.url.clone();
    let found = host.look(&url).await;
    let server = found.server.clone().unwrap();
    assert_eq!(server.kind(), Kind::LlamaCpp);
    ok("recognise");

    let model = found.models.unwrap().remove(0);
    assert_eq!(model.artefact.name(), "smollm2-135m-instruct:q4_1");
    assert_eq!((model.slots, model.context, model.warm), (2, Some(2048), true));
    assert!(model.artefact.digest.is_some() && model.artefact.engine_build.is_some());
    ok("list");

    let text = read(ask(&*server, &model, 5).await.unwrap()).await;
    assert!(text.ends_with("data: [DONE]\n\n") && text.contains("\"completion_tokens\":5"), "{text}");
    ok("stream");

    let mut long = ask(&*server, &model, 2000).await.unwrap();
    long.chunk().await.unwrap();
    assert_eq!(server.busy().await, Some(1));
    drop(long);
    let dropped = Instant::now();
    while server.busy().await != Some(0) {
        assert!(dropped.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ok("cancel");

    let report = probe(&*server, &model).await;
    let seen = report.capabilities;
    assert!(seen.chat && seen.completions && seen.streaming && seen.usage && seen.cancels && seen.logprobs);
    assert!(!seen.embeddings, "it was started without embeddings");
    assert!(report.tokens_per_second.is_some_and(|speed| speed > 1.0));
    assert_eq!(seen.continuation, Continuation::Ids, "{report:?}");
    row(NAME, "continue", "run, by ids and by text");
    let refused = server.call(&model, Call::new(Endpoint::Embeddings, br#"{"input":"x"}"#, 0)).await.unwrap();
    assert_eq!((refused.status, refused.streaming), (501, false), "an error status is an answer");
    ok("probe");

    assert_eq!(server.unload(&model).await, Err(UnloadError::Unsupported));
    assert_eq!(server.holds(&model).await, Some(true));
    row(NAME, "unload, verify", "run: says that it cannot");

    real.kill();
    assert_eq!(host.look(&url).await.models, Err(ServerError::Unreachable));
    assert_eq!(ask(&*server, &model, 5).await.map(|it| it.status), Err(ServerError::Unreachable));
    ok("vanish");

    let again = Real::start(url.port().unwrap(), Some("sesame"));
    for (key, refused) in [(None, ServerError::KeyNeeded), (Some("wrong"), ServerError::KeyWrong)] {
        host.has_key(key);
        let found = host.look(&again.url).await;
        assert_eq!((found.server.map(|it| it.kind()), found.models), (Some(Kind::LlamaCpp), Err(refused)));
    }
    host.has_key(Some("sesame"));
    let back = host.look(&again.url).await;
    assert_eq!(back.models.unwrap()[0].artefact, model.artefact);
    ok("come back");
    ok("wrong key");
}
