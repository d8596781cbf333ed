//! Rebuilds when a migration is added: `sqlx::migrate!` only sees the files that were there at the last build.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
