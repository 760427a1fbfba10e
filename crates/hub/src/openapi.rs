//! `GET /openapi.json`: what the gateway takes and gives, true to the code (a test compares the routes).

use axum::Json;
use serde_json::{Value, json};

pub(crate) async fn serve() -> Json<Value> {
    Json(document())
}

fn document() -> Value {
    let mut document = all_but_browsers();
    if let (Some(paths), Value::Object(more)) = (document["paths"].as_object_mut(), for_browsers()) {
        paths.extend(more);
    }
    document
}

/// What the pages ask, and the pages themselves.
fn for_browsers() -> Value {
    json!({
        "/chat": { "get": open("A page to chat with the models: it needs a key, which an invite gives it.", "text/html") },
        "/join": { "get": open("The same page, opened with an invite behind the # of its address.", "text/html") },
        "/join/key": { "post": redeem() },
        "/join/forget": { "post": {
            "summary": "Ends the key that it is asked with, at once. A node's key is the node's to end.",
            "security": [{ "key": [] }],
            "responses": { "200": { "description": "It opens nothing any more." }, "401": error("No key of this hub, or a node's.") },
        } },
        "/admin": { "get": open("The operator's commands as a page; from the hub's own machine, or through its encrypted door.", "text/html") },
        "/admin/open": { "post": operated("A code of `idlewatt-hub admin link` for the secret of a session.") },
        "/admin/close": { "post": operated("Ends the session.") },
        "/admin/act": { "post": operated("One command of the operator's, as at the command line, and what it gives.") },
        "/admin/statements": { "post": operated("The command `statement`, with a month's statements as CSV.") },
    })
}

fn all_but_browsers() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Idlewatt hub",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "An OpenAI-compatible gateway in front of people's idle GPUs. Every answered request has a \
                            signed receipt.",
        },
        "paths": {
            "/": { "get": open("The status page.", "text/html") },
            "/energy": { "get": open("What a token costs in joules: a page of all that nodes measured and published.", "text/html") },
            "/energy.csv": { "get": open("The same as a table, units in its header.", "text/csv") },
            "/energy.json": { "get": open("The same as reports, with their units, signers and envelopes.", "application/json") },
            "/energy/reports": { "post": publish() },
            "/energy/reports/{id}": { "get": with_path(json!({
                "summary": "One report as its node signed it.",
                "responses": {
                    "200": { "description": "The envelope.", "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Envelope" } } } },
                    "404": error("There is none."),
                },
            }), "id") },
            "/healthz": { "get": open("The process runs.", "text/plain") },
            "/readyz": { "get": open("Takes requests; 503 while it drains.", "text/plain") },
            "/metrics": { "get": open("Counters in Prometheus' text form.", "text/plain") },
            "/openapi.json": { "get": open("This document.", "application/json") },
            "/v1/models": { "get": keyed("Models offered now, with price, nodes, warm or cold, and how that is known.", "Models") },
            "/v1/models/{model}": { "get": with_path(keyed("One model.", "Model"), "model") },
            "/v1/chat/completions": { "post": ask("Answers a conversation.", "messages", true) },
            "/v1/completions": { "post": ask("Continues a text.", "prompt", true) },
            "/v1/embeddings": { "post": ask("Embeds texts.", "input", false) },
            "/v1/receipts/{id}": { "get": with_path(keyed("The signed receipt of one of the account's own requests; waits up to 2 s for it.", "ReceiptFile"), "id") },
            "/node/v1": { "get": {
                "summary": "The session of a node: a WebSocket of subprotocol idlewatt.node.v1.",
                "responses": { "101": { "description": "Switching protocols." } },
            } },
            "/node/v1/keys": { "post": {
                "summary": "A node that joined names, signed, the hash of an API key that it made for the account it earns for, or revokes it.",
                "requestBody": { "required": true, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Envelope" } } } },
                "responses": {
                    "200": { "description": "Done: whose key it is.", "content": { "application/json": { "schema": {
                        "type": "object", "properties": { "account": { "type": "string" } } } } } },
                    "400": error("It is no statement of a node for this hub."),
                    "403": error("The node never joined, or may not spend."),
                    "409": error("The key was revoked, or the node made too many."),
                    "413": error("It is over 4 KiB."),
                    "503": error("The hub cannot write now; see retry-after."),
                },
            } },
        },
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "An API key, `iw-…`." } },
            "schemas": {
                "Error": { "type": "object", "required": ["error"], "properties": { "error": {
                    "type": "object", "required": ["message", "type", "param", "code"], "properties": {
                        "message": { "type": "string" }, "type": { "type": "string" },
                        "param": { "type": ["string", "null"] }, "code": { "type": ["string", "null"] },
                    } } } },
                "Model": { "type": "object", "required": ["id", "object", "created", "owned_by", "idlewatt"], "properties": {
                    "id": { "type": "string" }, "object": { "const": "model" }, "created": { "type": "integer" },
                    "owned_by": { "const": "idlewatt" }, "idlewatt": { "type": "object", "properties": {
                        "price": { "type": "object", "properties": { "min": { "type": "integer" }, "max": { "type": "integer" }, "unit": { "type": "string" } } },
                        "nodes": { "type": "integer" }, "available": { "type": "boolean" }, "warm": { "type": "boolean" },
                        "context": { "type": "integer" }, "verification": { "enum": ["declared"] },
                        "capabilities": { "type": "array" }, "artefacts": { "type": "array" },
                    } } } },
                "Models": { "type": "object", "properties": { "object": { "const": "list" },
                    "data": { "type": "array", "items": { "$ref": "#/components/schemas/Model" } } } },
                "Envelope": { "type": "object", "description": "A DSSE envelope with a Merkle path.",
                    "required": ["payloadType", "payload", "index", "path", "leaves", "keyid", "sig"], "properties": {
                        "payloadType": { "type": "string" }, "payload": { "type": "string", "description": "Base64." },
                        "index": { "type": "integer" }, "path": { "type": "array", "items": { "type": "string" } },
                        "leaves": { "type": "integer" }, "keyid": { "type": "string" }, "sig": { "type": "string" },
                    } },
                "ReceiptFile": { "type": "object", "required": ["receipt"], "properties": {
                    "receipt": { "$ref": "#/components/schemas/Envelope" },
                    "salt": { "type": "string", "description": "Salt of the commitments, hexadecimal." } } },
            },
        },
    })
}

fn open(summary: &str, kind: &str) -> Value {
    json!({ "summary": summary, "responses": { "200": { "description": "As it says.", "content": { kind: {} } } } })
}

/// Signed by a node that joined; no key.
fn publish() -> Value {
    let envelope = json!({ "$ref": "#/components/schemas/Envelope" });
    let links = json!({ "type": "object", "properties": {
        "id": { "type": "string" }, "report": { "type": "string" }, "page": { "type": "string" } } });
    let kept = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": links } } });
    json!({
        "summary": "Publishes what `idlewatt bench` measured, signed by a node that joined this hub.",
        "requestBody": { "required": true, "content": { "application/json": { "schema": envelope } } },
        "responses": {
            "200": kept("It was here already."),
            "201": kept("It is kept."),
            "400": error("It is no report, altered, or beyond belief."),
            "403": error("Its signer never joined this hub."),
            "409": error("Its signer published as many as one may."),
            "413": error("It is over 128 KiB."),
            "503": error("The hub cannot write now; see retry-after."),
        },
    })
}

/// Asked by the admin page.
fn operated(summary: &str) -> Value {
    json!({
        "summary": summary,
        "responses": {
            "200": { "description": "Done." },
            "400": error("The body is not right."),
            "401": error("The session is over."),
            "403": error("Not from here, not with this code, or not by a page."),
            "409": error("Not done; the words say why."),
            "415": error("It is not sent as JSON."),
        },
    })
}

/// An invite, used by a browser.
fn redeem() -> Value {
    let string = json!({ "type": "string" });
    json!({
        "summary": "Uses an invite up for an API key of its account, as the chat page does. The key is seen this once.",
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object", "required": ["token"], "properties": { "token": string } } } } },
        "responses": {
            "200": { "description": "The key, and whose it is.", "content": { "application/json": { "schema": {
                "type": "object", "properties": { "account": string, "key": string } } } } },
            "400": error("The body is not right."),
            "403": error("The invite lets a machine in to earn only."),
            "404": error("This hub did not make the invite."),
            "409": error("The invite was used."),
            "410": error("The invite has expired."),
            "413": error("It is over 1 KiB."),
            "415": error("It is not sent as JSON."),
            "503": error("The hub cannot write now; see retry-after."),
        },
    })
}

fn keyed(summary: &str, schema: &str) -> Value {
    json!({
        "summary": summary,
        "security": [{ "key": [] }],
        "responses": {
            "200": { "description": "Found.", "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } } },
            "401": error("No key of this hub."),
            "404": error("There is none."),
        },
    })
}

fn with_path(mut operation: Value, name: &str) -> Value {
    let parameter = json!([{ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }]);
    if let Some(operation) = operation.as_object_mut() {
        operation.insert("parameters".into(), parameter);
    }
    operation
}

fn ask(summary: &str, needed: &str, streams: bool) -> Value {
    let mut content = json!({ "application/json": { "schema": { "type": "object" } } });
    if let (true, Some(content)) = (streams, content.as_object_mut()) {
        content.insert("text/event-stream".into(), json!({ "schema": { "type": "string" } }));
    }
    let header = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "summary": summary,
        "security": [{ "key": [] }],
        "parameters": [
            { "name": "x-idlewatt-continue", "in": "header", "schema": { "enum": ["never", "same-artefact"] }, "description": "Whether another node with the same artefact may go on with an answer that broke off. With `never`, no second node is asked either where the first is slow to begin." },
            { "name": "x-idlewatt-max-price", "in": "header", "schema": { "type": "integer" }, "description": "Micro-credits a million tokens." },
            { "name": "x-idlewatt-region", "in": "header", "schema": { "type": "string" }, "description": "Where the node must stand, as its host declares: `eu` holds `eu-de`." },
            { "name": "x-idlewatt-scope", "in": "header", "schema": { "enum": ["own", "circle", "public"] }, "description": "Who may answer." },
        ],
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object", "required": ["model", needed],
            "description": "OpenAI's fields; those that are ignored are named in x-idlewatt-ignored, unknown ones are refused.",
        } } } },
        "responses": {
            "200": { "description": "The answer.", "content": content, "headers": {
                "x-request-id": header("The request's id, and its receipt's."),
                "x-idlewatt-receipt": header("The receipt's id."),
                "x-idlewatt-node": header("Which node answered."),
                "x-idlewatt-artefact": header("What it declared to serve."),
                "x-idlewatt-ignored": header("Fields that were ignored."),
            } },
            "400": error("The body is not JSON, or a field is not right or not supported."),
            "401": error("No key of this hub."),
            "402": error("The account cannot pay the worst case."),
            "404": error("No node ever offered this model."),
            "413": error("The body is over 4 MiB."),
            "429": error("Every node is busy; see retry-after."),
            "502": error("The node broke off, or sent no answer that can be used."),
            "503": error("No node answers for this model now; see retry-after."),
        },
    })
}

fn error(description: &str) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, methods) in document()["paths"].as_object().unwrap() {
            described
                .extend(methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
        }
        let mut routed: Vec<(String, String)> = crate::gateway::routes()
            .iter()
            .map(|(method, path, _)| ((*method).into(), (*path).into()))
            .collect();
        described.sort();
        routed.sort();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
