//! The one binary, `regency`: a file per command.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("usage: regency <command>")
}
