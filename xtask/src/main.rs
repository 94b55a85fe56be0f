//! Checks and campaigns of the repository: `cargo xtask <recipe>`.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("usage: cargo xtask <recipe>")
}
