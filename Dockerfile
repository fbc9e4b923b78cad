# cwjax serve in a container.
#
#     docker build -t cwjax .                                        # CPU
#     docker build -t cwjax:cuda --build-arg EXTRAS=serve,cuda .     # NVIDIA GPUs: JAX's wheels bring CUDA along
#     docker run --rm -p 8000:8000 -v cwjax:/cache -e CWJAX_API_KEY=... cwjax --model base
FROM python:3.12-slim

ARG EXTRAS=serve

RUN useradd --create-home cwjax && mkdir /cache && chown cwjax /cache
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY cwjax cwjax
RUN pip install --no-cache-dir ".[${EXTRAS}]" && rm -rf /src

# Weights and compiled programs outlive the container.
ENV HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache
USER cwjax
WORKDIR /home/cwjax
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --start-period=5m CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["cwjax", "serve", "--host", "0.0.0.0"]
CMD ["--model", "base"]
