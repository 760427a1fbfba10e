//! What each server says, and how it behaves when it is asked to free a model.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Of, State, html, json_text};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../fixtures/", $name))
    };
}

/// What each of its answers names as the server that sent it.
pub(super) fn header(of: Of) -> [(header::HeaderName, &'static str); 1] {
    let name = match of {
        Of::LlamaCpp | Of::LlamaRouter => "llama.cpp",
        Of::MlxLm => "BaseHTTP/0.6 Python/3.11.7",
        Of::Vllm | Of::SgLang | Of::TabbyApi => "uvicorn",
        _ => "",
    };
    [(header::SERVER, name)]
}

/// Whether a path wants the key where one is set.
pub(super) fn is_guarded(of: Of, path: &str) -> bool {
    match of {
        Of::LlamaCpp | Of::LlamaRouter => !matches!(path, "/health" | "/v1/health"),
        Of::Vllm | Of::TextGenerationWebui | Of::OpenAi => path.starts_with("/v1"),
        Of::TabbyApi => !matches!(path, "/health" | "/.well-known/serviceinfo"),
        Of::SgLang => !matches!(path, "/health" | "/metrics"),
        Of::Jan => path != "/openapi.json",
        // Only what generates, and what its administrator may do.
        Of::KoboldCpp => path.ends_with("completions") || path.starts_with("/api/admin"),
        Of::LmStudio | Of::LocalAi => true,
        Of::Ollama | Of::MlxLm => false,
    }
}

/// What a request meets while the model is not there; loads it where the server would.
pub(super) async fn unready(state: &State) -> Option<Response> {
    if state.is_loaded() {
        return None;
    }
    match state.of {
        // Asleep it answers nobody, and says nothing.
        Of::Vllm => std::future::pending().await,
        // With its memory released the scheduler dies.
        Of::SgLang => Some(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        Of::TabbyApi | Of::KoboldCpp | Of::TextGenerationWebui => {
            Some((StatusCode::SERVICE_UNAVAILABLE, "{\"detail\":\"No model is loaded.\"}").into_response())
        }
        _ => {
            state.load();
            None
        }
    }
}

pub(super) fn facts(state: &Arc<State>, method: &Method, path: &str, target: &str, body: &Value) -> Response {
    let get = method == Method::GET;
    let said = match state.of {
        Of::LlamaCpp | Of::LlamaRouter if !get && super::going_on::worked_out(path, body).is_some() => {
            super::going_on::worked_out(path, body).map(|it| it.to_string())
        }
        Of::LlamaCpp if get => llama_cpp(path),
        Of::LlamaRouter => llama_router(state, get, path, target, body),
        Of::Ollama => ollama(state, get, path, body),
        Of::LmStudio => return lm_studio(state, get, path, body),
        Of::Vllm => vllm(state, get, path),
        Of::SgLang => return sglang(state, get, path),
        Of::TabbyApi => return tabby_api(state, get, path),
        Of::KoboldCpp => return koboldcpp(state, get, path, body),
        Of::MlxLm if get => mlx_lm(path),
        Of::Jan if get => match path {
            "/openapi.json" => Some(fixture!("jan/openapi.json").to_owned()),
            "/v1/models" => Some(fixture!("jan/models.json").to_owned()),
            _ => None,
        },
        Of::LocalAi => local_ai(state, get, path, body),
        Of::TextGenerationWebui if get => match path {
            "/v1/internal/model/info" => Some(fixture!("text-generation-webui/info.json").to_owned()),
            "/v1/models" => Some(fixture!("text-generation-webui/models.json").to_owned()),
            _ => None,
        },
        Of::OpenAi if get && path == "/v1/models" => Some(fixture!("openai/models.json").to_owned()),
        _ => None,
    };
    said.map_or_else(|| StatusCode::NOT_FOUND.into_response(), json_text)
}

fn llama_cpp(path: &str) -> Option<String> {
    match path {
        "/props" => Some(fixture!("llama.cpp/props.json").to_owned()),
        "/models" | "/v1/models" => Some(fixture!("llama.cpp/models.json").to_owned()),
        "/slots" => Some(fixture!("llama.cpp/slots.json").to_owned()),
        _ => None,
    }
}

fn llama_router(state: &State, get: bool, path: &str, target: &str, body: &Value) -> Option<String> {
    let id = "ggml-org/SmolLM2-135M-Instruct-GGUF:Q4_1";
    if get && target.contains("model=") && !target.contains("autoload=false") {
        // A router loads what it is asked about.
        state.load();
    }
    match path {
        "/props" if target.contains("model=") => {
            state.is_loaded().then(|| fixture!("llama.cpp/props.json").to_owned())
        }
        "/props" => {
            Some(json!({"role": "router", "model_alias": "llama-server", "model_path": "none"}).to_string())
        }
        "/models" | "/v1/models" if get => {
            let status = if state.is_loaded() { "loaded" } else { "unloaded" };
            Some(json!({"object": "list", "data": [{"id": id, "status": {"value": status}}]}).to_string())
        }
        "/slots" => {
            let busy = state.generating.load(Ordering::SeqCst) > 0;
            Some(json!([{"id": 0, "is_processing": busy}]).to_string())
        }
        "/models/unload" if !get && body["model"] == id && state.is_loaded() => {
            state.free();
            Some(json!({"success": true}).to_string())
        }
        _ => None,
    }
}

fn ollama(state: &Arc<State>, get: bool, path: &str, body: &Value) -> Option<String> {
    match path {
        "/" => Some("Ollama is running".to_owned()),
        "/api/version" => Some(fixture!("ollama/version.json").to_owned()),
        "/api/tags" => Some(fixture!("ollama/tags.json").to_owned()),
        "/v1/models" => Some(json!({"object": "list", "data": null}).to_string()),
        "/api/ps" if state.is_loaded() => Some(fixture!("ollama/ps.json").to_owned()),
        "/api/ps" => Some(json!({"models": []}).to_string()),
        "/api/generate" if !get && body["keep_alive"] == 0 && body.get("prompt").is_none() => {
            // While a request runs, the model stays until that has ended.
            let state = Arc::clone(state);
            tokio::spawn(async move {
                while state.generating.load(Ordering::SeqCst) > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                state.free();
            });
            Some(
                json!({"model": body["model"], "response": "", "done": true, "done_reason": "unload"})
                    .to_string(),
            )
        }
        _ => None,
    }
}

/// Any path that it does not know is answered with 200.
fn lm_studio(state: &State, get: bool, path: &str, body: &Value) -> Response {
    let method = if get { "GET" } else { "POST" };
    match path {
        "/api/v1/models" if get => {
            let mut list: Value = serde_json::from_str(fixture!("lm-studio/models.json")).unwrap();
            if !state.is_loaded() {
                list["models"][0]["loaded_instances"] = json!([]);
            }
            json_text(list.to_string())
        }
        "/v1/models" if get => json_text(fixture!("lm-studio/openai-models.json")),
        "/api/v1/models/unload" if !get => {
            // The id of an instance, not the key of a model.
            if body["instance_id"] != "smollm2-135m-instruct:2" {
                return (StatusCode::NOT_FOUND, "{\"error\":\"no such instance\"}").into_response();
            }
            state.free();
            json_text(json!({"instance_id": body["instance_id"]}).to_string())
        }
        _ => json_text(
            json!({"error": format!("Unexpected endpoint or method. ({method} {path})")}).to_string(),
        ),
    }
}

fn vllm(state: &State, get: bool, path: &str) -> Option<String> {
    let dev_mode = !state.cannot_free.load(Ordering::SeqCst);
    match path {
        "/version" => Some(fixture!("vllm/version.json").to_owned()),
        "/load" => Some(fixture!("vllm/load.json").to_owned()),
        "/v1/models" if get => Some(fixture!("vllm/models.json").to_owned()),
        "/metrics" => {
            let running = state.generating.load(Ordering::SeqCst);
            Some(fixture!("vllm/metrics.txt").replace("{RUNNING}", &running.to_string()))
        }
        "/is_sleeping" if dev_mode => Some(json!({"is_sleeping": !state.is_loaded()}).to_string()),
        "/sleep" if dev_mode && !get => {
            state.free();
            Some(json!({"status": "sleeping", "level": 1}).to_string())
        }
        "/wake_up" if dev_mode && !get => {
            state.load();
            Some(json!({"status": "awake", "tags": null}).to_string())
        }
        _ => None,
    }
}

fn sglang(state: &State, get: bool, path: &str) -> Response {
    let saver = !state.cannot_free.load(Ordering::SeqCst);
    match path {
        // It generates a token to see whether it can.
        "/health" => {
            state.asked.lock().unwrap().push("a token was generated".to_owned());
            StatusCode::OK.into_response()
        }
        "/model_info" => json_text(fixture!("sglang/model_info.json")),
        "/server_info" => {
            let mut info: Value = serde_json::from_str(fixture!("sglang/server_info.json")).unwrap();
            info["enable_memory_saver"] = json!(saver);
            json_text(info.to_string())
        }
        "/v1/models" if get => json_text(fixture!("sglang/models.json")),
        "/v1/loads" => {
            let running = state.generating.load(Ordering::SeqCst);
            let load = json!({"dp_rank": 0, "num_running_reqs": running, "num_waiting_reqs": 0});
            json_text(json!({"version": "0.5.23", "loads": [load]}).to_string())
        }
        "/release_memory_occupation" if state.generating.load(Ordering::SeqCst) > 0 => {
            state.asked.lock().unwrap().push("the scheduler died".to_owned());
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        "/release_memory_occupation" => {
            // Without the memory saver it agrees, and nothing happens.
            if saver {
                state.free();
            }
            json_text("null")
        }
        "/resume_memory_occupation" => {
            state.load();
            json_text("null")
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn tabby_api(state: &State, get: bool, path: &str) -> Response {
    let nothing_loaded = (StatusCode::BAD_REQUEST, "{\"detail\":\"No models are currently loaded.\"}");
    json_text(match path {
        "/.well-known/serviceinfo" => fixture!("tabbyapi/serviceinfo.json").to_owned(),
        // It imitates llama.cpp here, without a build.
        "/props" => json!({"total_slots": 4, "default_generation_settings": {"n_ctx": 4096}}).to_string(),
        "/v1/model" | "/v1/model/unload" if !state.is_loaded() => return nothing_loaded.into_response(),
        "/v1/model" => fixture!("tabbyapi/model.json").to_owned(),
        "/v1/models" if get => fixture!("tabbyapi/models.json").to_owned(),
        // Its administrator's only.
        "/v1/model/unload" if state.cannot_free.load(Ordering::SeqCst) => {
            return (StatusCode::UNAUTHORIZED, "{\"detail\":\"Invalid admin key\"}").into_response();
        }
        "/v1/model/unload" if !get => {
            state.free();
            "null".to_owned()
        }
        "/v1/model/load" if !get => {
            state.load();
            "data: {\"status\":\"finished\"}\n\n".to_owned()
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    })
}

fn koboldcpp(state: &State, get: bool, path: &str, body: &Value) -> Response {
    let admin = !state.cannot_free.load(Ordering::SeqCst);
    let said = match path {
        "/" => return html("<html><title>KoboldAI Lite</title></html>"),
        "/api/extra/version" => {
            let mut version: Value = serde_json::from_str(fixture!("koboldcpp/version.json")).unwrap();
            version["admin"] = json!(u8::from(admin));
            version["protected"] = json!(state.key.lock().unwrap().is_some());
            version.to_string()
        }
        "/api/v1/model" if state.is_loaded() => fixture!("koboldcpp/model.json").to_owned(),
        "/api/v1/model" => json!({"result": "inactive"}).to_string(),
        "/api/extra/true_max_context_length" => json!({"value": 8192}).to_string(),
        "/api/extra/perf" => {
            let busy = state.generating.load(Ordering::SeqCst) > 0;
            json!({"idle": u8::from(!busy), "queue": 0}).to_string()
        }
        // It answers for llama.cpp, Ollama and OpenAI too.
        "/props" => json!({"total_slots": 1, "model_path": "local_model.gguf"}).to_string(),
        "/api/version" => json!({"version": "0.7.0"}).to_string(),
        "/api/tags" => json!({"models": [{"name": "koboldcpp", "model": "koboldcpp:latest"}]}).to_string(),
        "/v1/models" if get => fixture!("koboldcpp/models.json").to_owned(),
        // Without `--admin` it is there, says 200, and does nothing.
        "/api/admin/reload_config" if !admin => json!({"success": false}).to_string(),
        "/api/admin/reload_config" => {
            match body["filename"].as_str() {
                Some("unload_model") => state.free(),
                Some("initial_model") => state.load(),
                _ => return json_text(json!({"success": false}).to_string()),
            }
            json!({"success": true}).to_string()
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    json_text(said)
}

fn mlx_lm(path: &str) -> Option<String> {
    (path == "/v1/models").then(|| fixture!("mlx-lm/models.json").to_owned())
}

fn local_ai(state: &State, get: bool, path: &str, body: &Value) -> Option<String> {
    match path {
        "/system" => {
            let loaded = state.is_loaded().then(|| json!([{"id": "smollm2-135m-instruct"}]));
            Some(json!({"backends": ["llama-cpp"], "loaded_models": loaded}).to_string())
        }
        "/version" => Some(fixture!("localai/version.json").to_owned()),
        // It answers for Ollama too.
        "/" => Some("Ollama is running".to_owned()),
        "/api/version" => Some(json!({"version": "0.9.0"}).to_string()),
        "/v1/models" if get => Some(fixture!("localai/models.json").to_owned()),
        "/backend/shutdown" if !get && body["model"] == "smollm2-135m-instruct" => {
            state.free();
            Some("null".to_owned())
        }
        _ => None,
    }
}
