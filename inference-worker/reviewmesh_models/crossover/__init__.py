"""Whether own GPUs or a provider's tokens cost less, and from which volume.

`comparison` computes, `measured` reads rates from reports of the benchmarks, `page` draws.
"""
