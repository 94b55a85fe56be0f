//! Temporary.
fn main() {
    let mut args = std::env::args().skip(1);
    let scenario = args.next().unwrap();
    let from: u64 = args.next().unwrap().parse().unwrap();
    let seeds: u64 = args.next().unwrap().parse().unwrap();
    let options = regency_sim::Options { from, seeds, scenario: regency_sim::Scenario::from_name(&scenario), ..Default::default() };
    if let Some(path) = std::env::var_os("TRACE") {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
        let _ = regency_sim::replay(&options, &mut file);
        return;
    }
    let report = regency_sim::run(&options).unwrap();
    let names = ["log read", "snapshot offered", "chunk read", "donor without", "chunks found", "snapshot of others", "lost votes", "died in a tr", "disk wiped", "vice: f", "vice: old", "vice: donor", "bad_supply", "unexpected_supply"];
    let reached: Vec<&str> = report.points.iter().map(|p| p.name()).filter(|n| names.iter().any(|w| n.starts_with(w))).collect();
    println!("{} schedules {} events {:?}\n{:?}", report.schedules, report.events, report.failure, reached);
    if let Some(trace) = std::env::var_os("TRACE") { let _ = trace; }
    if seeds == 1 { if let Some(f) = report.failure { println!("{:#?}", f); } }
}
