"""``mpicoded data``: make or import a dataset."""

import shlex
from argparse import Namespace

from mpicoded.data import datasets, imports, layout
from mpicoded.errors import InputError


def make(arguments: Namespace) -> int:
    """Write the dataset and say what it is."""
    name, output, seed = arguments.dataset, arguments.output, arguments.seed
    dirichlet = getattr(arguments, "split", None) == "dirichlet"
    if not dirichlet and getattr(arguments, "alpha", None) is not None:
        raise InputError("--alpha is for --split dirichlet only")
    if name == "linear_regression":
        datasets.linear_regression(
            output,
            subsets=arguments.subsets,
            features=arguments.features,
            samples_per_subset=arguments.samples_per_subset,
            sigma_h=arguments.sigma_h,
            seed=seed,
        )
    else:
        if name == "digits":
            samples = datasets.digits(seed)
        elif name == "fashion_mnist":
            samples = datasets.fashion_mnist(arguments.source or datasets.FASHION_MNIST)
        else:
            name = f"import {shlex.quote(arguments.source)}"
            samples = imports.read_source(
                arguments.source,
                target=arguments.target,
                task=arguments.task,
                seed=seed,
                test_fraction=arguments.test_fraction,
            )
        alpha = 1.0 if arguments.alpha is None else arguments.alpha
        kind = f"dirichlet --alpha {alpha}" if dirichlet else arguments.split
        options = ""
        if arguments.dataset == "import":
            options = f" --test-fraction {arguments.test_fraction} --task {arguments.task}"
            if arguments.target is not None:
                options += f" --target {shlex.quote(arguments.target)}"
        datasets.write_split(
            output,
            samples,
            subsets=arguments.subsets,
            kind=arguments.split,
            alpha=alpha,
            seed=seed,
            made_by=f"{name} --subsets {arguments.subsets} --split {kind} --seed {seed}{options}",
        )
    description = layout.describe(output)
    print(description)
    if 10 * description.classes > description.samples:
        print("(whole numbers as targets are classes unless --task regression says otherwise)")
    return 0
