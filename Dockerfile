# docker build -t sphereml .        docker run --rm -v "$PWD:/work" sphereml demo
FROM python:3.11-slim

# torch comes from the registry that pip is set up for: give --build-arg or a pip.conf for a build without CUDA.
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY sphereml sphereml
COPY configs configs
COPY data_manifests data_manifests
RUN pip install --no-cache-dir --constraint constraints.txt torch==2.13.0 \
 && pip install --no-cache-dir --constraint constraints.txt . \
 && rm -rf /src

ENV SPHEREML_DATA=/work/.sphereml
WORKDIR /work
ENTRYPOINT ["sphereml"]
CMD ["doctor"]
