use super::*;
use std::fs;

/// A small model that llama.cpp would take, from the corpus of `gguf`.
const SMALL: &[u8] = include_bytes!("../../tests/fixtures/gguf/small.gguf");

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn found(home: &Path) -> Vec<ModelOnDisk> {
    ModelFiles::default().find(&Places::of(home, |_| None, &[home.join("mine")]))
}

fn said(models: &[ModelOnDisk]) -> Vec<String> {
    models.iter().map(|it| format!("{} {:?} {}", it.model, it.quantisation, it.source.name())).collect()
}

#[test]
fn models_are_found_where_other_programs_keep_them() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    put(&home.join(".lmstudio/models/some/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"), SMALL);
    put(&home.join(".lmstudio/models/some/Qwen3-8B-GGUF/mmproj-Qwen3-8B.gguf"), SMALL);
    put(&home.join("mine/deep/er/Gemma.Q8_0.GGUF"), SMALL);
    put(&home.join(".cache/llama.cpp/Phi-4-00002-of-00003.gguf"), SMALL);
    put(&home.join(".cache/llama.cpp/notes.txt"), SMALL);
    let digest = "a".repeat(64);
    put(&home.join(format!(".ollama/models/blobs/sha256-{digest}")), SMALL);
    let manifest = format!(
        r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}","size":1}}]}}"#
    );
    put(&home.join(".ollama/models/manifests/registry.ollama.ai/library/llama3.2/3b"), manifest.as_bytes());
    let models = found(home);
    assert_eq!(
        said(&models),
        [
            "gemma Some(\"q8_0\") your folder",
            "llama3.2-3b Some(\"q8_0\") Ollama",
            "qwen3-8b Some(\"q8_0\") LM Studio",
        ]
    );
    assert!(models.iter().all(|it| it.header.is_ok() && !it.id.contains('/')), "{models:?}");
    assert!(models[1].id.starts_with("ollama-"), "{}", models[1].id);
    assert_eq!(ModelFiles::default().one(&models[1].path), models[1], "its name is found by its path alone");
}

#[cfg(unix)]
#[test]
fn a_file_behind_two_links_is_found_once_and_a_loop_of_folders_ends() {
    use std::os::unix::fs::symlink;
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let hub = home.join(".cache/huggingface/hub/models--some--m");
    put(&hub.join("blobs/0123"), SMALL);
    for snapshot in ["one", "two"] {
        fs::create_dir_all(hub.join("snapshots").join(snapshot)).unwrap();
        symlink("../../blobs/0123", hub.join("snapshots").join(snapshot).join("M-Q8_0.gguf")).unwrap();
    }
    symlink(&hub, hub.join("snapshots/one/loop")).unwrap();
    symlink("nowhere", hub.join("snapshots/one/gone.gguf")).unwrap();
    let models = found(home);
    assert_eq!(said(&models), ["m Some(\"q8_0\") Hugging Face cache"]);
    assert!(models[0].path.ends_with("M-Q8_0.gguf"), "the name that says what it is");
}

#[test]
fn what_cannot_be_read_is_listed_with_why_and_what_is_no_model_is_not() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    put(&home.join("mine/cut.gguf"), &SMALL[..SMALL.len() / 2]);
    put(&home.join("mine/page.gguf"), &[b'<'; 5000]);
    put(&home.join("mine/tiny.gguf"), b"GGUF");
    let store = home.join(".ollama/models");
    let layer = |digest: &str| {
        format!(r#"{{"layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"{digest}"}}]}}"#)
    };
    for (tag, digest) in
        [("up", "sha256:../../../etc/passwd"), ("gone", &format!("sha256:{}", "b".repeat(64)))]
    {
        put(&store.join("manifests/registry.ollama.ai/library/m").join(tag), layer(digest).as_bytes());
    }
    put(&store.join("manifests/registry.ollama.ai/library/m/huge"), &[b' '; 1 << 20]);
    let models = found(home);
    assert_eq!(models.iter().map(|it| it.model.as_str()).collect::<Vec<_>>(), ["cut", "page"]);
    assert!(matches!(models[0].header, Err(GgufError::Truncated { .. })));
    assert_eq!(models[1].header, Err(GgufError::NotGguf));
}

#[test]
fn a_file_is_read_again_only_when_it_has_changed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mine/m.gguf");
    put(&path, &SMALL[..SMALL.len() / 2]);
    let files = ModelFiles::default();
    assert!(files.one(&path).header.is_err());
    put(&path, SMALL);
    assert!(files.one(&path).header.is_ok());
    assert_eq!(files.read.lock().unwrap().len(), 1);
}

#[test]
fn variables_move_the_places_as_they_do_for_the_programs_themselves() {
    let of = |name: &'static str, value: &'static str| {
        let places = Places::of(Path::new("/home/me"), |it| (it == name).then(|| value.into()), &[]);
        let all = places.folders().iter().map(|it| &it.1).chain(places.ollama());
        all.map(|it| it.to_path_buf()).collect::<Vec<_>>()
    };
    assert!(of("HF_HOME", "/big/hf").iter().any(|it| it.starts_with("/big/hf")));
    assert!(of("HF_HUB_CACHE", "/big/hub").contains(&"/big/hub".into()));
    assert!(of("LLAMA_CACHE", "/big/llama").contains(&"/big/llama".into()));
    assert!(of("OLLAMA_MODELS", "/big/ollama").contains(&"/big/ollama".into()));
    assert!(of("NONE", "").contains(&"/home/me/.ollama/models".into()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_is_found_in_path_first_and_says_its_version() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let script = |folder: &str, text: &str, mode: u32| {
        let path = home.join(folder).join("llama-server");
        put(&path, text.as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let in_path = script(
        "path",
        "#!/bin/sh\necho 'ggml_cuda_init: found' >&2\necho 'version: 6123 (5a0c7e3)' >&2\n",
        0o755,
    );
    let local = script(".local/bin", "#!/bin/sh\necho hello\n", 0o755);
    script("bin", "no program", 0o644);
    let path = home.join("path");
    let found = programs(home, |it| (it == "PATH").then(|| path.clone().into()), &home.join("own"));
    assert_eq!(found[..2], [in_path.clone(), local.clone()]);
    assert_eq!(version(&in_path).await.as_deref(), Some("6123 (5a0c7e3)"));
    assert_eq!(version(&local).await, None);
}
