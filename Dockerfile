# What a node of a GPU cluster runs: cluster.yaml, deploy/cluster-gcp.yaml and deploy/kuberay.yaml.
#
#   docker build -t your-registry/calibadv:0.1.0 . && docker push your-registry/calibadv:0.1.0
#
# Driver on the host: 580 or later (torch 2.13 is built for CUDA 13). pip, not uv: pyproject's overrides are for CPU.
FROM rayproject/ray:2.60.0-py311-gpu

WORKDIR /home/ray/calibadv
COPY --chown=ray:users pyproject.toml README.md LICENSE ./
COPY --chown=ray:users calibadv calibadv
COPY --chown=ray:users serve serve
COPY --chown=ray:users workflows workflows
RUN pip install --no-cache-dir -e ".[gpu]" "mlflow==3.17.2"

# Closed by default: without a token (RAY_AUTH_TOKEN, or ~/.ray/auth_token) `ray start` refuses.
# `ray job stop` kills after 3 s if it is not told to wait: no time to save.
ENV RAY_AUTH_MODE=token RAY_JOB_STOP_WAIT_TIME_S=600
