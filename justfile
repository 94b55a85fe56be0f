# Shortcuts only: every recipe is one `cargo xtask` call, so that nobody needs `just`.

# List the recipes.
default:
    @just --list

# Everything that .ci/run does.
ci:
    cargo xtask ci

# File sizes, documentation, links, rules, purity.
tidy:
    cargo xtask tidy

# The pure core built for a target without clock, threads and files.
purity:
    cargo xtask purity

# Tests that need other programs: redis-cli, redis-benchmark, redis-server, Python.
external:
    cargo xtask external

# 50,000 fixed seeds, some of them twice, and every mutant.
sim-smoke:
    cargo xtask sim-smoke

# The campaign of the simulator: a million seeds, and what kills each mutant, into docs/campaigns.md.
campaign *arguments:
    cargo xtask campaign {{arguments}}

# Real replicas whose leader is killed, paused, slow or lying.
failover *arguments:
    cargo xtask failover {{arguments}}

# Real replicas killed under load, alone and all at once, that come back with everything.
kills *arguments:
    cargo xtask kills {{arguments}}

# The same with file systems that are shut down under the replicas; needs root, loop mounts and xfs_io.
power-cuts *arguments:
    cargo xtask power-cuts {{arguments}}

# Damage to the files of stopped replicas: no wrong answer, and it heals.
damage *arguments:
    cargo xtask damage {{arguments}}

# What durability costs, against none, etcd and the disk; wants a quiet machine.
durability *arguments:
    cargo xtask durability {{arguments}}

# What the work since a commit costs when nothing fails; wants a quiet machine.
paired *arguments:
    cargo xtask paired {{arguments}}

# A replica that comes back from a large snapshot and a long log.
recovery *arguments:
    cargo xtask recovery {{arguments}}

# Replicas that slept, were restarted or lost everything, with a large state and donors that lie.
transfers *arguments:
    cargo xtask transfers {{arguments}}

# The same with a state in a file; what memory it takes.
in-a-file *arguments:
    cargo xtask in-a-file {{arguments}}

# The same while links are cut and mended; needs root, network namespaces and nft.
partitions *arguments:
    cargo xtask partitions {{arguments}}

# Short benchmark runs; checks the JSON.
bench-smoke:
    cargo xtask bench-smoke

# The commands of the README, in an empty directory.
readme:
    cargo xtask readme

# Fuzz one target (all of them without a name) for some seconds.
fuzz target="all" seconds="60":
    cargo xtask fuzz {{target}} {{seconds}}
