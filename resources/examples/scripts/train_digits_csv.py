"""Trains a small network on scikit-learn's handwritten digits with plain PyTorch, and appends its metrics to a CSV file.

An ordinary training script: it knows nothing of the program that launches it.
"""

import argparse
import csv
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, default=Path("metrics.csv"))
    parser.add_argument("--model", type=Path, default=None)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    pixels, labels = load_digits(return_X_y=True)
    split = train_test_split(pixels / 16.0, labels, test_size=0.25, stratify=labels, random_state=0)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in split[:2])
    train_y, test_y = (torch.tensor(part) for part in split[2:])

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)

    step = 0
    with options.csv.open("w", newline="", encoding="utf-8", buffering=1) as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train/loss", "test/loss", "test/accuracy"])
        for epoch in range(options.epochs):
            model.train()
            order = torch.randperm(len(train_x))
            for batch in order.split(options.batch):
                loss = functional.cross_entropy(model(train_x[batch]), train_y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                writer.writerow([step, loss.item(), "", ""])
            model.eval()
            with torch.inference_mode():
                logits = model(test_x)
            test_loss = functional.cross_entropy(logits, test_y).item()
            accuracy = (logits.argmax(1) == test_y).float().mean().item()
            writer.writerow([step, "", test_loss, accuracy])
            print(f"epoch {epoch + 1}/{options.epochs}: test loss {test_loss:.4f}, test accuracy {accuracy:.2%}")
    if options.model is not None:
        torch.save(model.state_dict(), options.model)


if __name__ == "__main__":
    main()
