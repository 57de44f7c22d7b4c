"""Detection on the RSNA Pneumonia Detection Challenge (table 5): RetinaNet on a pretrained ResNet-18."""
