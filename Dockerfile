# deepemd serve in a container: build with `docker build -t deepemd .`, and read docs/serving.md.
# Only the build needs a network. What runs is a user without a home folder, who can write nowhere.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src

# The build of PyTorch without CUDA, of the version that the tests use.
RUN pip install -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
      "torch==$(sed -n 's/^torch==//p' constraints.txt)+cpu" ".[serve,heif]" \
 && rm -rf /build

WORKDIR /
# Compile the solver for this kind of processor. On another kind it is compiled again at every start, within a minute.
RUN deepemd warmup

USER 65534:65534
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]

# The saved classifier is mounted at /model; the variable DEEPEMD_TOKEN holds the token.
ENTRYPOINT ["deepemd"]
CMD ["serve", "/model", "--host", "0.0.0.0"]
