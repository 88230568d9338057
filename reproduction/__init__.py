"""The reproduction of the ID-LoRA paper: from configs to trained models, records, tables and the page.

    config -> cell -> run -> records -> tables

    paths      where the checkout has its configs and experiments; palette: the colours of figures
    system     files written whole, processes that end together, the cache's folder, questions to the hub
    records    what a run leaves on disk
    report     records -> tables, figures, significance, audit, page
    theory     Theorems 1 and 2 on synthetic matrices
    data       text -> token ids and loss mask
    tinyworld  the embedded bases and tasks
    training   base, adapter, optimiser steps, checkpoints
    evals      prompts, answers, scores, the sandbox
    benchmark  what a method costs in time and memory
    cells      configs -> cells: what one cell of a table computes, checked
    cli        errors as sentences and exit codes
    running    cells -> runs: train, evaluate, several processes
    preflight  what this machine lacks for cells, and how long they take
    commands   what stands behind most scripts

A part imports none that stands below it; report and theory import nothing of the reproduction but records, system and
palette. The adapters themselves are the package `idlora`, which `training` imports.
"""

import logging

# bitsandbytes, which PEFT imports, warns of a kernel that it lacks on some CPUs, in every process.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
