//! Whole systems: hub, engine and model server as real processes.

#![cfg(test)]

mod admin_page;
mod awake;
mod bad_input;
mod bench;
mod continued;
mod disconnect;
mod full;
mod homes;
mod hostile;
mod keyring;
mod kill;
mod main_path;
mod managed;
mod measure;
mod mixed_run;
mod money;
mod own_endpoint;
mod own_use;
mod panel;
mod power;
mod privacy;
mod receipts;
mod sdk;
mod sharing;
mod telephone;
mod yielding;
mod yours;

use serde_json::{Value, json};

/// A chat whose answer is the same every time.
fn chat(prompt: &str, max_tokens: u32) -> Value {
    json!({
        "model": idlewatt_tests::MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "seed": 7,
    })
}

/// The same as a stream, with usage.
fn stream(prompt: &str, max_tokens: u32) -> Value {
    let mut body = chat(prompt, max_tokens);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    body
}

/// The same as a stream that goes on long enough to be broken off: the token that ends an answer (number 2 of this
/// model) is forbidden.
fn long_stream(prompt: &str) -> Value {
    let mut body = stream(prompt, 1_500);
    body["logit_bias"] = json!({"2": -100});
    body
}
