"""Run ``deepemd`` as ``python -m deepemd``, as torchrun starts it."""

from deepemd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
