"""`ipr bench load`, `soak` and `compare` measure latency under load so that it can be believed (docs/load-testing.md).

arrivals lengths      when requests are sent, and what they ask: both made before the run, from a seed
targets*              what answers: this process's engine in several forms; other routers: benchmarks/peers
loads *runner window  closed and open loop; what was answered and lost in a stretch of time
soak ladder           ten minutes and then overload; concurrency, saturation
quantiles slo compare attribution   intervals, verdicts, which stage a missed objective is owed to
noise report curves   what the machine did meanwhile; a run as JSON, as a table, as a picture
"""
