//! The window's files, built into the program.

use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};

// `FILES: &[(&str, &[u8])]`, path below ui/dist and content, sorted by path.
include!(concat!(env!("OUT_DIR"), "/window.rs"));

const NOT_BUILT: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Idlewatt</title><h1>Built without its \
    window</h1><p>This program was compiled before <code>ui/</code> was built, so it has no pages. The engine runs: use \
    the <code>idlewatt</code> command, or build <code>ui/</code> (<code>npm ci &amp;&amp; npm run build</code>) and compile again.";

pub(super) async fn page(method: Method, uri: Uri) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")]).into_response();
    }
    let path = uri.path().trim_start_matches('/');
    // A path without an extension is a page of the window, which finds its way by itself.
    let path = if path.contains('.') { path } else { "index.html" };
    match FILES.binary_search_by(|(name, _)| (*name).cmp(path)) {
        Ok(at) => FILES.get(at).map_or_else(|| StatusCode::NOT_FOUND.into_response(), serve),
        Err(_) if FILES.is_empty() => (StatusCode::NOT_FOUND, Html(NOT_BUILT)).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn serve((path, bytes): &(&'static str, &'static [u8])) -> Response {
    // Vite names what lies in assets/ by its content.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(CONTENT_TYPE, kind(path)), (CACHE_CONTROL, cache)], *bytes).into_response()
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" | "webmanifest" => "application/json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
