pub fn random() -> String {
    format!("boat{}", std::process::id())
}
