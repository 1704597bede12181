"""Two examples or more of every verb, as ``--help`` prints them; a test parses each."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("sphereml demo", "sphereml demo data.galaxy.nside=64 training.epochs=2 output=/tmp/quick"),
    "data list": ("sphereml data list", "sphereml data list --in /data/sphereml --json"),
    "data fetch": (
        "sphereml data fetch hi4pi --to /data/sphereml",
        "sphereml data fetch planck --from /archive/planck --offline",
    ),
    "data verify": ("sphereml data verify", "sphereml data verify hi4pi --in /data/sphereml"),
    "data prepare": (
        "sphereml data prepare data=galaxy data.galaxy.nside=64",
        "sphereml data prepare data=hi4pi_planck data.folder=/data/sphereml",
    ),
    "data info": (
        "sphereml data info stores/galaxy-0123abcd.zarr",
        "sphereml data info stores/galaxy-0123abcd.zarr --html sky.html --split north_south",
    ),
    "data clean": ("sphereml data clean", "sphereml data clean /scratch/stores --all"),
    "data stokes": (
        "sphereml data stokes cubes --out qu.fits",
        "sphereml data stokes cubes --out local.fits --channels 10 30",
    ),
    "simulate": (
        "sphereml simulate dust data.galaxy.nside=128",
        "sphereml simulate lensing lensing.skies=10 --only 0-4",
    ),
    "train": (
        "sphereml train experiment=dust_demo",
        "sphereml train experiment=dust_demo model=unet_sphere training.epochs=3 --dry-run",
        "sphereml train experiment=dust_demo --resume",
        "sphereml train -m experiment=dust_demo model=unet_sphere training.learning_rate=1e-3,3e-4",
    ),
    "runs list": ("sphereml runs list", "sphereml runs list runs/demo --csv > runs.csv"),
    "predict": (
        "sphereml predict runs/demo --overwrite",
        "sphereml predict runs/demo --data data=galaxy --out other_sky",
    ),
    "compare": ("sphereml compare runs/demo", "sphereml compare runs/demo --patches 500 --json > scores.json"),
    "spectra": (
        "sphereml spectra sky.fits --mask mask.fits --apodize 5 --width 20 --lmax 256",
        "sphereml spectra qu.fits --field QU --mask mask.fits --edges 2,20,60,120 --purify-b \\\n"
        "    --template 'dust.fits[Q]' --json",
    ),
    "marginalize": (
        "sphereml marginalize --sky sky.fits --mask mask.fits --apodize 5 --template dust.fits",
        "sphereml marginalize --sky 'sky.fits[Q,U]' --mask mask.fits --template 'dust.fits[Q,U]' --out cleaned",
    ),
    "hough": (
        "sphereml hough stores/galaxy-0123abcd.zarr --out qu.fits",
        "sphereml hough nhi.fits --length 300 --smoothing 120 --polcconv IAU --out qu.fits",
    ),
    "lensing n0": (
        "sphereml lensing n0 --noise 1 --beam 1 --lmax 4000",
        "sphereml lensing n0 --noise 5 --beam 4 --lmax 3000 --json > n0.json",
    ),
    "lensing estimate": (
        "sphereml lensing estimate --qu qu.fits --noise 1 --beam 1 --out kappa.fits",
        "sphereml lensing estimate --qu qu.fits --mask mask.fits --depth depth.fits --mean-field 20 \\\n"
        "    --out kappa.fits --e-out e.fits",
    ),
    "lensing template": (
        "sphereml lensing template --kappa kappa.fits --e e.fits --out lensing_b.fits",
        "sphereml lensing template --kappa kappa.fits --e unlensed_e.fits --order all --out lensing_b.fits",
    ),
    "study": (
        "sphereml study experiment=lensing_quick",
        "sphereml study dust training.epochs=2 --dry-run",
    ),
    "report": ("sphereml report runs/demo", "sphereml report runs/lensing_quick"),
    "config show": (
        "sphereml config show experiment=dust_demo",
        "sphereml config show experiment=dust_demo model=unet_flat --plain > mine.yaml",
    ),
    "config validate": (
        "sphereml config validate experiment=dust_demo training.epochs=3",
        "sphereml config validate runs/demo/linear-0123abcd/config.json",
    ),
    "config list": ("sphereml config list", "sphereml config list --json"),
    "config new": (
        "sphereml config new mine --inputs a.fits b.fits --target t.fits",
        "sphereml config new mine --inputs a.fits --target 't.fits[I]' --mask m.fits --split s.fits",
    ),
    "info": ("sphereml info", "sphereml info > bug_report.txt"),
    "doctor": ("sphereml doctor", "sphereml doctor --json"),
    "completion": (
        'eval "$(sphereml completion bash)"        # in ~/.bashrc',
        'eval "$(sphereml completion zsh)"         # in ~/.zshrc',
        "sphereml completion fish | source        # in ~/.config/fish/config.fish",
    ),
    "cluster render": (
        "sphereml cluster render train experiment=dust_demo",
        "sphereml cluster render --time 8:00:00 --gpus 1 train experiment=dust_demo training.processes=4",
    ),
    "bench growth": ("sphereml bench growth", "sphereml bench growth --nsides 64,128 --steps compare,predict"),
    "bench conv": ("sphereml bench conv --nside 64", "sphereml bench conv --nside 32 --runs 3 --memory --json"),
    "bench jets": ("sphereml bench jets --nside 64", "sphereml bench jets --nside 32 --figures jets"),
    "bench graph": ("sphereml bench graph --nside 64", "sphereml bench graph --nside 256 --ours"),
    "bench sht": ("sphereml bench sht --nside 64 --lmax 128", "sphereml bench sht --nside 64 --loss --json"),
    "bench tile": ("sphereml bench tile --nside 64", "sphereml bench tile --nside 512 --tiles-only"),
    "bench prepare": ("sphereml bench prepare --nside 128", "sphereml bench prepare --nside 64 --no-resume"),
    "bench qe": ("sphereml bench qe --lmax 512", "sphereml bench qe --lmax 1024 --memory --json"),
    "bench train": (
        "sphereml bench train --experiment lensing_quick --batch 4",
        "sphereml bench train --runs 3 --json",
    ),
}
