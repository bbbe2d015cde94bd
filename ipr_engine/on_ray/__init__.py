"""This room spreads long steps over the machines of a Ray cluster (docs/ray.md): one actor owns the ledger, workers are lost and replaced.

cluster                          which cluster, how many workers, what each of them has
ledger_owner, grade_on_ray       answers of a ledger, graded by the workers, every grade noted by its owner
embed_on_ray                     prompts, embedded by the workers into the shards of a cache
"""
